"""Tests of `SyncBus` on RabbitMQ: forks, the end of the interpreter, and a restart."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from bus import Bus, Settings, SyncBus, Unavailable
from bus.operations.brokers.private_node import PrivateNode
from tests.broker import kill_with_queues_on_disk
from tests.integration.command import Ended, ended, running
from tests.integration.held_service import Echo, Held, Pid, Sold

PROGRAM = "tests.integration.synchronous_caller"


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[Held]:
    held = Held()
    settings = Settings(url=SecretStr(url), auth="off", stop_grace=0)
    async with Bus("held", settings=settings) as bus, bus.serving(held.router):
        yield held


async def program(mode: str, url: str) -> Ended:
    """Run the program to its end. A hang fails the test."""
    async with running(mode, program=PROGRAM, BUS_URL=url, BUS_AUTH="off") as process:
        return await ended(process, 100)


def errors(run: Ended) -> str:
    """Return what a program has printed to stderr, without the warning about BUS_AUTH."""
    lines = run.err.splitlines()
    return "\n".join(line for line in lines if not line.startswith("BUS_AUTH=off"))


async def test_a_forked_child_uses_its_own_connection_and_leaves_its_parent_undisturbed(
    vhost_url: str,
) -> None:
    async with serving(vhost_url) as held:
        run = await program("fork", vhost_url)
    assert run.out.splitlines() == [
        "parent True",
        "child has",
        "child : a parent process submitted the job. Read its result there, or submit a job.",
        "child True True",
        "child threads True True True True",
        "code 0",
        "parent True",
        "held True",
    ]
    assert errors(run) == ""
    assert run.code == 0
    assert len(held.instances) == 2, "the replies of each process have a queue of their own"


async def test_children_that_are_forked_while_threads_call_do_not_hang(vhost_url: str) -> None:
    async with serving(vhost_url):
        run = await program("forks", vhost_url)
    assert run.out == "codes 0 0 0 0 0 True\n", run.err
    assert errors(run) == ""


async def test_processes_of_multiprocessing_use_the_bus_of_their_module(vhost_url: str) -> None:
    async with serving(vhost_url) as held:
        run = await program("pools", vhost_url)
    assert run.out.splitlines() == [
        "parent True",
        *(f"{method} True True" for method in ("fork", "spawn", "forkserver")),
        "parent True",
    ], run.err
    assert errors(run) == ""
    assert len(held.instances) > 3


ENDS = {
    "daemon": (0, [], ""),
    "thread": (0, ["main True", "after main True"], ""),
    "executor": (0, ["main True", "after main True"], ""),
    "leave": (3, [], ""),
    "fail": (1, [], "LookupError: the program fails"),
}
"""The exit code, the output and the last line on stderr of each way to end a program."""


async def test_a_program_ends_with_calls_in_flight(vhost_url: str) -> None:
    async with serving(vhost_url):
        runs = await asyncio.gather(*(program(mode, vhost_url) for mode in ENDS))
    for run, (code, out, err) in zip(runs, ENDS.values(), strict=True):
        # The interpreter may end a daemon thread before the thread prints its error.
        lines = [line for line in run.out.splitlines() if line != "held ConnectionLost"]
        assert (run.code, lines) == (code, out), run.err
        assert errors(run).rpartition("\n")[2] == err


async def test_sigterm_ends_a_program_while_a_call_is_in_flight(vhost_url: str) -> None:
    async with (
        serving(vhost_url),
        running("wait", program=PROGRAM, BUS_URL=vhost_url, BUS_AUTH="off") as process,
    ):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGTERM)
        run = await ended(process, 100)
    assert (run.code, errors(run)) == (-signal.SIGTERM, "")


async def test_calls_during_a_restart_of_rabbitmq_fail_or_wait_and_later_calls_work(
    private_node: PrivateNode,
) -> None:
    settings = Settings(url=SecretStr(private_node.url), auth="off")
    held = Held()
    async with Bus("held", settings=settings) as worker, worker.serving(held.router):
        bus = SyncBus("synchronous", settings=settings)
        try:
            assert await asyncio.to_thread(bus.request, Echo(pid=1), timeout=60) == Pid(pid=1)
            await kill_with_queues_on_disk(private_node)
            with pytest.raises(Unavailable):
                await asyncio.to_thread(bus.request, Echo(pid=2), timeout=0.2)
            waiting = asyncio.create_task(asyncio.to_thread(bus.publish, Sold(pid=3), timeout=100))
            await private_node.start()
            await waiting
            await held.free.wait()
            assert await asyncio.to_thread(bus.request, Echo(pid=4), timeout=100) == Pid(pid=4)
        finally:
            await asyncio.to_thread(bus.close)
