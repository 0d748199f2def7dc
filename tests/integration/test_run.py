"""Tests of `bus run`: signals, a clean stop, several processes, and errors in one line."""

import asyncio
import json
import os
import signal

import pytest
from pydantic import SecretStr

from bus import Bus, BusError, NotServed, Settings
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.health import READY, probe
from tests.conformance.world import until
from tests.integration.command import bus, ended, running
from tests.integration.library_service import FindBook
from tests.integration.slow_service import Nap, ProcessId, WhoAreYou

TARGET = "tests.integration.slow_service:router"


async def test_the_first_signal_lets_running_work_finish(vhost_url: str) -> None:
    async with running("run", TARGET, BUS_URL=vhost_url) as process, _caller(vhost_url) as caller:
        await _who(caller)
        job = await caller.submit(Nap(seconds=0.5))
        await anext(job.updates())  # the handler has begun
        process.send_signal(signal.SIGTERM)
        answer = await ended(process)

        assert (await job.result(timeout=40)).process == process.pid
    assert answer.code == 0
    said = [json.loads(line) for line in answer.err.splitlines()]
    assert [(line["event"], line.get("grace")) for line in said if " stop" in line["event"]] == [
        ("slow is stopping within 30 s; a second signal stops at once", 30),
        ("slow stopped", None),
    ]


async def test_a_second_signal_ends_it_now_and_the_work_waits_for_another(vhost_url: str) -> None:
    async with _caller(vhost_url) as caller:
        async with running("run", TARGET, BUS_URL=vhost_url) as process:
            await _who(caller)
            job = await caller.submit(Nap(seconds=3))
            await anext(job.updates())  # the handler has begun
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
            answer = await ended(process)  # a clean stop would wait for the nap, and end with 0
        async with running("run", TARGET, BUS_URL=vhost_url) as other:
            assert (await job.result(timeout=40)).process == other.pid

    # The kernel delivers two pending signals in the order of their numbers.
    assert answer.code in {128 + signal.SIGINT, 128 + signal.SIGTERM}


async def test_a_process_that_dies_is_started_again(vhost_url: str) -> None:
    async with (
        running("run", TARGET, "--processes", "2", BUS_URL=vhost_url) as parent,
        _caller(vhost_url) as caller,
    ):
        first = await _who(caller)
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(100):
            seen = {await _who(caller)}
            while len(seen) < 2:
                seen.add(await _who(caller))
        parent.send_signal(signal.SIGTERM)
        answer = await ended(parent)

    assert first not in seen
    assert answer.code == 0


async def test_several_services_share_each_process_and_the_health_port(vhost_url: str) -> None:
    port = free_ports(1)[0]
    async with (
        running(
            *("run", TARGET, "tests.integration.library_service:router", "--processes", "2"),
            BUS_URL=vhost_url,
            BUS_HEALTH_PORT=str(port),
        ) as parent,
        _caller(vhost_url) as caller,
    ):
        await until(lambda: _is_ready(port), "both services in both processes to be ready")
        await _who(caller)
        place = await caller.request(FindBook(title="Emma"), timeout=20)
        parent.send_signal(signal.SIGTERM)
        answer = await ended(parent)

    assert (place.shelf[:2], answer.code) == ("A3", 0)
    lines = [json.loads(line) for line in answer.err.splitlines() if line.startswith("{")]
    stopped = sorted(line["service"] for line in lines if line["event"].endswith("stopped"))
    assert stopped == ["library", "library", "slow", "slow"]


@pytest.mark.parametrize(
    ("target", "about"),
    [
        ("nonsense", "MODULE:ROUTER"),
        ("no.such.module:router", "module 'no' does not exist"),
        ("tests.integration.slow_service:Nap", "bus.Router"),
        ("tests.integration.slow_service:nothing", "does not exist"),
    ],
)
async def test_a_target_that_is_no_router_is_told_in_a_line(target: str, about: str) -> None:
    answer = await bus("run", target, BUS_URL="amqp://127.0.0.1:1/")

    assert answer.code == 78
    assert len(answer.err.splitlines()) == 1
    assert about in answer.err


async def test_a_broker_that_is_down_is_told_in_a_line() -> None:
    answer = await bus(
        "run", TARGET, BUS_URL="amqp://guest:secret@127.0.0.1:1/", BUS_CONNECT_TIMEOUT="1"
    )

    assert answer.code == 69
    assert "the broker at 127.0.0.1:1 cannot be reached" in answer.err.splitlines()[-1]
    assert "secret" not in answer.err


async def test_what_cannot_start_is_not_started_for_ever() -> None:
    # Wrong settings already end the parent. Only its processes find a wrong target.
    answer = await bus("run", "no.such.module:router", "--processes", "2")

    assert answer.code == 78
    assert "module 'no' does not exist" in answer.err
    assert "has failed to start 3 times in a row; stopping" in answer.err


async def _is_ready(port: int) -> bool:
    try:
        return await probe((LOOPBACK, port), READY, timeout=5) is None
    except BusError:
        return False


def _caller(url: str) -> Bus:
    return Bus("caller", settings=Settings(url=SecretStr(url)))


async def _who(caller: Bus) -> int:
    """Wait until a process serves, and return its id."""
    async with asyncio.timeout(100):
        while True:
            try:
                answer: ProcessId = await caller.request(WhoAreYou(), timeout=5)
            except NotServed:
                await asyncio.sleep(0.02)
            else:
                return answer.process
