"""Tests of messages that kill the process that handles them, with real processes.

Only these messages must be dead-lettered.
"""

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path

import pytest
from pydantic import SecretStr

from bus import Bus, Settings
from bus.contracts.contract import contract_of
from bus.messaging.topology.model import merge
from bus.messaging.topology.names import dead_letter_queue, event_queue, job_queue
from tests.integration.command import bus, ended, running
from tests.integration.mortal_service import KILLER, SLOW, Noted, Tidy, entries, router

pytestmark = pytest.mark.timeout(240)

TARGET = "tests.integration.mortal_service:router"
JOBS, EVENTS = job_queue(contract_of(Tidy)), event_queue("mortal", contract_of(Noted))
PATIENCE = 200.0
"""Seconds for a test. A process starts in 1 s, and in several seconds on a loaded machine."""


def sender(url: str) -> Bus:
    return Bus("mortal", settings=Settings(url=SecretStr(url)))


def neighbours(count: int) -> list[str]:
    """Return names of messages; each tenth is slow, and could never end beside a killer."""
    return [f"{SLOW if number % 10 == 0 else 'quick'}-{number}" for number in range(count)]


async def records(url: str, queue: str) -> list[dict[str, object]]:
    """Return the fault records of a work queue's dead letters, as `bus dead` shows them."""
    listed = await bus("dead", "list", "--queue", queue, "--json", BUS_URL=url)
    assert listed.code == 0, listed.err
    return [letter["record"] for letter in json.loads(listed.out)["letters"]]


async def until_dead(caller: Bus, queue: str, count: int) -> None:
    """Wait until a work queue has `count` dead letters and is empty."""
    async with asyncio.timeout(PATIENCE):
        while await caller._transport.depth(  # noqa: ASYNC110 - the broker is polled
            dead_letter_queue(queue)
        ) < count or await caller._transport.depth(queue):
            await asyncio.sleep(0.1)


async def test_one_that_kills_among_100_prefetched_is_dead_lettered_and_99_are_handled_once(
    vhost_url: str, tmp_path: Path
) -> None:
    diary, names = tmp_path / "diary", neighbours(99)
    async with sender(vhost_url) as caller:
        await caller._transport.declare(
            merge(topology for _, topology in router.topology().values())
        )
        for name in [*names[:50], KILLER, *names[50:]]:
            await caller.submit(Tidy(name=name, together=100))
        settings = {"BUS_URL": vhost_url, "BUS_DELIVERY_LIMIT": "5", "MORTAL_DIARY": str(diary)}
        # With `--reload` a parent runs one process, and starts it again when it ends.
        async with running("run", TARGET, "--reload", **settings) as parent:
            await until_dead(caller, JOBS, 1)
            parent.send_signal(signal.SIGTERM)
            answer = await ended(parent)

    assert answer.code == 0, answer.err
    (record,) = await records(vhost_url, JOBS)
    assert (record["code"], record["attempts"], record["error"], record["queue"]) == (
        "process_lost",
        1,
        "ProcessLost",
        JOBS,
    )
    assert sorted(entries(diary, "done")) == sorted((name, 1) for name in names)
    killed = entries(diary, "killed")
    assert killed[0] == (KILLER, 100)
    # The broker may count one death as two lost deliveries: it can move the deliveries of one
    # consumer to another consumer of the process that is ending.
    assert 4 <= len(killed) <= 5
    assert [company for _, company in killed[2:]] == [1] * (len(killed) - 2)
    assert answer.err.count("ended with exit code") == len(killed)


async def test_three_that_kill_are_found_by_two_processes_and_all_others_are_handled(
    vhost_url: str, tmp_path: Path
) -> None:
    diary, names = tmp_path / "diary", neighbours(60)
    killers = [f"{KILLER}-{number}" for number in range(3)]
    async with sender(vhost_url) as caller:
        await caller._transport.declare(
            merge(topology for _, topology in router.topology().values())
        )
        for name in [*names[:20], *killers, *names[20:]]:
            await caller.publish(Noted(name=name, together=2))
        settings = {"BUS_URL": vhost_url, "BUS_DELIVERY_LIMIT": "4", "MORTAL_DIARY": str(diary)}
        async with running("run", TARGET, "--processes", "2", **settings) as parent:
            await until_dead(caller, EVENTS, 3)
            parent.send_signal(signal.SIGTERM)
            answer = await ended(parent)

    # 1: the last killer ended its process just before the stop, and it was not started again.
    assert answer.code in {0, 1}, answer.err
    found = await records(vhost_url, EVENTS)
    assert [(record["code"], record["attempts"]) for record in found] == [("process_lost", 1)] * 3
    done = Counter(entries(diary, "done"))
    assert set(done) == {(name, 1) for name in names}
    assert done.total() == len(names)
    assert max(Counter(name for name, _ in entries(diary, "killed")).values()) <= 4
