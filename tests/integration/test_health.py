"""Tests of health probes: a lost broker, a stop, a process that died, a process that is stuck."""

import asyncio
import os
import signal
import subprocess

import pytest
from pydantic import SecretStr

from bus import Bus, Settings
from bus.errors import BusError
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.health import LIVE, READY, probe
from tests.broker import kill_with_queues_on_disk
from tests.integration.command import bus, ended, running
from tests.integration.slow_service import Nap

TARGET = "tests.integration.slow_service:router"
WAITING = "not ready: not every consumer is registered at the broker"


class Asked:
    """A port for health probes, and the answers there."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.environment = {"BUS_HEALTH_PORT": str(self.port), "BUS_HEARTBEAT": "1"}

    async def how(self, path: str = READY) -> str | None:
        try:
            return await probe((LOOPBACK, self.port), path, timeout=5)
        except BusError:
            return "nobody"

    async def until(self, *said: str | None, path: str = READY) -> None:
        """Wait until the probe returns one of these answers."""
        async with asyncio.timeout(100):
            while True:
                if await self.how(path) in said:
                    return
                await asyncio.sleep(0.02)


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def test_a_broker_that_is_silent_or_away_makes_a_worker_not_ready_and_leaves_it_live(
    private_node: PrivateNode, asked: Asked
) -> None:
    async with running("run", TARGET, BUS_URL=private_node.url, **asked.environment) as process:
        await asked.until(None)
        assert (await bus("health", **asked.environment)).code == 0

        await private_node.pause()
        await asked.until(WAITING)
        assert await asked.how(LIVE) is None
        await private_node.resume()
        await asked.until(None)

        await kill_with_queues_on_disk(private_node)
        await asked.until(WAITING)
        assert await asked.how(LIVE) is None
        away = await bus("health", **asked.environment)
        await private_node.start()
        await asked.until(None)

        process.send_signal(signal.SIGTERM)
        answer = await ended(process)
    assert (away.code, away.out, away.err) == (1, f"{WAITING}\n", "")
    assert answer.code == 0
    assert await asked.how() == "nobody"


async def test_a_worker_that_stops_is_not_ready_and_is_live_until_its_work_is_done(
    vhost_url: str, asked: Asked
) -> None:
    async with (
        running("run", TARGET, BUS_URL=vhost_url, **asked.environment) as process,
        Bus("caller", settings=Settings(url=SecretStr(vhost_url))) as caller,
    ):
        await asked.until(None)
        job = await caller.submit(Nap(seconds=1))
        await anext(job.updates())  # the handler has begun
        process.send_signal(signal.SIGTERM)

        await asked.until("not ready: stopping")
        assert await asked.how(LIVE) is None
        assert process.returncode is None
        answer = await ended(process)
        assert (await job.result(timeout=40)).process == process.pid
    assert answer.code == 0


async def test_several_processes_answer_at_one_port(vhost_url: str, asked: Asked) -> None:
    async with running(
        "run", TARGET, "--processes", "2", BUS_URL=vhost_url, **asked.environment
    ) as parent:
        await asked.until(None)
        one, other = children(parent.pid)

        os.kill(one, signal.SIGSTOP)
        await asked.until("not live: 1 of 2 processes", path=LIVE)
        assert await asked.how() == "not ready: 1 of 2 processes"
        os.kill(one, signal.SIGCONT)
        await asked.until(None, path=LIVE)

        os.kill(other, signal.SIGKILL)
        await asked.until("not ready: 1 of 2 processes")
        assert await asked.how(LIVE) is None
        await asked.until(None)

        parent.send_signal(signal.SIGTERM)
        answer = await ended(parent)
    assert answer.code == 0


async def test_a_port_that_is_taken_ends_the_start_with_a_line(
    vhost_url: str, asked: Asked
) -> None:
    async with await asyncio.start_server(lambda *_: None, LOOPBACK, asked.port):
        for more in ([], ["--processes", "2"]):
            answer = await bus("run", TARGET, *more, BUS_URL=vhost_url, **asked.environment)
            assert answer.code == 78
            assert answer.err.splitlines()[-1].endswith("Set BUS_HEALTH_PORT to a free port.")


async def test_nobody_there_is_not_ready_and_no_port_is_a_wrong_setting(asked: Asked) -> None:
    nobody, live = (
        await bus("health", **asked.environment),
        await bus("health", "--live", **asked.environment),
    )
    unset = await bus("health")

    where = f"no process answers health probes on 127.0.0.1:{asked.port}\n"
    assert (nobody.code, nobody.out) == (1, f"not ready: {where}")
    assert (live.code, live.out) == (1, f"not live: {where}")
    assert unset.code == 78
    assert "BUS_HEALTH_PORT" in unset.err


def children(parent: int) -> list[int]:
    """Return the child processes of a process."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split() for line in listed.splitlines())
    return [int(child) for child, of in rows if int(of) == parent]
