"""Tests of `bus run` whose handlers call `sys.exit`, and start and end other processes."""

import asyncio
import signal

import pytest
from pydantic import SecretStr

from bus import Bus, Internal, NotServed, Settings
from tests.integration.command import ended, running
from tests.integration.exiting_service import (
    SECRET,
    Exit,
    ForkAndReturn,
    ForkAndTerminate,
    Pid,
)

TARGET = "tests.integration.exiting_service:router"


def caller(url: str) -> Bus:
    return Bus("caller", settings=Settings(url=SecretStr(url), auth="off"))


async def test_no_exit_in_a_handler_and_no_signal_to_its_child_ends_a_worker(
    vhost_url: str,
) -> None:
    async with (
        running("run", TARGET, BUS_URL=vhost_url, BUS_AUTH="off") as worker,
        caller(vhost_url) as bus,
    ):
        await _answering(bus)
        for way in ("handler", "task", "thread", "interrupt"):
            with pytest.raises(Internal):
                await bus.request(Exit(way=way), timeout=20)
        own = await bus.request(Exit(way="forgotten task"), timeout=20)
        assert own == Pid(pid=worker.pid)
        for number in (signal.SIGTERM, signal.SIGINT):
            answer = await bus.request(ForkAndTerminate(number=number), timeout=40)
            # A child that SIGINT interrupts before it has begun ends with 130, and later with 1.
            assert answer.child in ({-signal.SIGTERM} if number == signal.SIGTERM else {1, 130})
            assert answer.pid == worker.pid
        assert await bus.request(ForkAndReturn(), timeout=20) == Pid(pid=worker.pid, child=70)
        assert await bus.request(ForkAndReturn(code=3), timeout=20) == Pid(pid=worker.pid, child=3)
        assert await bus.request(Exit(), timeout=20) == own, "the same worker, and it goes on"
        worker.send_signal(signal.SIGTERM)
        stopped = await ended(worker)
    assert stopped.code == 0
    assert SECRET not in stopped.err + stopped.out
    assert "a forked child process has returned to the event loop of its parent" in stopped.err
    assert "connection lost" not in stopped.err


async def test_an_exit_outside_of_handlers_stops_the_worker_cleanly_and_not_with_0(
    vhost_url: str,
) -> None:
    async with (
        running("run", TARGET, BUS_URL=vhost_url, BUS_AUTH="off") as worker,
        caller(vhost_url) as bus,
    ):
        await _answering(bus)
        await bus.request(Exit(way="callback"), timeout=20)
        stopped = await ended(worker)
    assert stopped.code == 70
    assert "SystemExit outside of a handler at " in stopped.err
    assert "exiting stopped" in stopped.err
    assert SECRET not in stopped.err + stopped.out


async def _answering(bus: Bus) -> None:
    async with asyncio.timeout(100):
        while True:
            try:
                await bus.request(Exit(), timeout=20)
            except NotServed:
                await asyncio.sleep(0.02)
            else:
                return
