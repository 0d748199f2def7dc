"""Exams of the long form besides the campaigns: each runs on a node and returns figures."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.select import INSTALL
from tests.chaos.actor import Actor
from tests.chaos.cluster import ROUNDS, Cluster, rounds
from tests.chaos.jobs.crash_scene import crash_exam
from tests.chaos.jobs.crash_table import broken_points, has_runs
from tests.chaos.jobs.store_outage import outage_exam
from tests.chaos.jobs_at_random import IN_DATABASES, IN_MEMORY, jobs_at_random
from tests.chaos.journal import ACKED, FAILED, Tail
from tests.chaos.neighbours import STATES, retried_beside
from tests.chaos.node import ChaosNode
from tests.chaos.poison import fuzzed, through_the_broker
from tests.chaos.retrying import Policy, percentile, tried
from tests.chaos.scene import Scene
from tests.chaos.sender import Order

__all__ = ["EXAMS", "Exam"]

Found = dict[str, Any]
CLIENTS = 200
PATIENCE = 150
"""Seconds for each send; a fault is shorter, even on a machine that other processes share."""
CRASHES = int(os.environ.get("CHAOS_CRASHES") or 100)
"""Minimum number of processes that are killed at each step of a durable job."""
CLUSTER_ROUNDS, ROUND_MESSAGES = int(os.environ.get("CHAOS_ROUNDS") or 20), 2_500
"""Number of rounds, each of which takes a minute or more, and messages of each round."""
TROUBLE, TROUBLE_RATE = 600, 20
"""Seconds of each failure of one service, and events a second for the other service."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """An exam."""

    title: str
    sit: Callable[[ChaosNode, Path], Awaitable[Found]]
    broken: Callable[[Found], str]
    """Function that returns the broken promise; empty if all were kept."""
    is_complete: Callable[[Found], bool] = lambda _: True
    """Function that returns False if recorded figures are of a shorter run."""


async def retries(node: ChaosNode, directory: Path) -> Found:
    order = Order(
        count=10_000, rate=500, senders=200, seconds=0, failing=1, fail=(1, 2), hopeless=0
    )
    tries = await tried(node, directory, order, Policy(attempts=4, first=1, factor=5))
    return {
        "messages": len(tries.wanted),
        "retries": len(tries.late),
        "wrong attempts": len(tries.wanted.items() ^ tries.counted.items()),
        "lost": tries.lost,
        "late median": round(percentile(tries.late, 0.5), 3),
        "late p99": round(percentile(tries.late, 0.99), 3),
        "late most": round(tries.late[-1], 3),
    }


async def loops(node: ChaosNode, directory: Path) -> Found:
    order = Order(count=10_000, rate=500, senders=200, seconds=0, failing=1, fail=(10,), hopeless=0)
    tries = await tried(node, directory, order, Policy(attempts=11, first=1, factor=1))
    return {
        "messages": len(tries.wanted),
        "retries": len(tries.late),
        "wrong attempts": len(tries.wanted.items() ^ tries.counted.items()),
        "lost": tries.lost,
        "late p99": round(percentile(tries.late, 0.99), 3),
    }


async def herd(node: ChaosNode, directory: Path) -> Found:
    journal = Tail(directory / "herd")
    async with Scene(node, directory) as scene:
        command = [sys.executable, "-m", "tests.chaos.herd", str(directory / "herd"), str(CLIENTS)]
        flock = await Actor.started(
            "herd", command, {"BUS_URL": scene.url, "BUS_LOG_LEVEL": "error"}, directory
        )
        try:
            await node.kill()
            await scene.returns(node.start())
            async with asyncio.timeout(120):
                while len(again(journal)) < CLIENTS:
                    await asyncio.sleep(0.1)
        finally:
            await flock.kill()
    took = sorted(at - scene.back[0] for at in again(journal).values())
    windows = Counter(int(seconds) for seconds in took)
    return {
        "clients": CLIENTS,
        "connections": 3 * CLIENTS,
        "first back": round(took[0], 2),
        "median back": round(percentile(took, 0.5), 2),
        "all back": round(took[-1], 2),
        "most in one second": max(windows.values()),
    }


def again(journal: Tail) -> dict[int, float]:
    """Return the time at which each client was ready again after an interruption."""
    journal.news()
    lost = {entry.number for entry in journal.entries if entry.mark == FAILED}
    return {
        entry.number: entry.at
        for entry in journal.entries
        if entry.mark == ACKED and entry.number in lost
    }


async def neighbours(node: ChaosNode, directory: Path) -> Found:
    """Run all failures at the same time, each in a virtual host of its own."""
    for state in STATES:
        (directory / state).mkdir()
    async with asyncio.TaskGroup() as group:
        tasks = {
            state: group.create_task(
                retried_beside(
                    node,
                    directory / state,
                    state,
                    in_trouble=TROUBLE * TROUBLE_RATE,
                    rate=TROUBLE_RATE,
                    patience=float(PATIENCE),
                )
            )
            for state in STATES
        }
    seen = {state: task.result() for state, task in tasks.items()}
    late = sorted(seconds for each in seen.values() for seconds in each.late)
    return {
        "events in the trouble": {state: each.in_trouble for state, each in seen.items()},
        "retries": len(late),
        "not back": sum(each.pending for each in seen.values()),
        "late median": round(percentile(late, 0.5), 3),
        "late p99": round(percentile(late, 0.99), 3),
        "late most": round(late[-1], 3),
    }


async def poison(node: ChaosNode, directory: Path) -> Found:
    return {
        "decoded": fuzzed(1_000_000, seed=1),
        **await through_the_broker(node, directory, 50_000),
    }


async def cluster(node: ChaosNode, directory: Path) -> Found:
    installation = find_installation(os.environ)
    assert installation, INSTALL
    found: Found = {
        "rounds": 0,
        "messages": 0,
        "lost": 0,
        "unexpected": 0,
        "unknown": 0,
        "failed": 0,
        "done again": 0,
    }
    gaps: dict[str, list[float]] = {name: [] for name in ROUNDS}
    names = (ROUNDS * CLUSTER_ROUNDS)[:CLUSTER_ROUNDS]
    async with Cluster(installation) as three:
        async for each in rounds(
            three, directory, names, messages=ROUND_MESSAGES, seed=1, timeout=PATIENCE
        ):
            verdict = each.played.verdict
            found["rounds"] += 1
            found["messages"] += verdict.messages
            found["lost"] += len(verdict.lost)
            found["unexpected"] += len(verdict.unexpected)
            found["unknown"] += verdict.unknown
            found["failed"] += verdict.failed
            found["done again"] += verdict.duplicate_effects
            gaps[each.fault.name].append(each.gap)
            print(
                f"  {each.fault.name}: {verdict.messages} messages, "
                f"no confirm for {each.gap:.1f} s",
                flush=True,
            )
    return {
        **found,
        **{
            f"longest without a confirm, {name}": round(max(times), 1)
            for name, times in gaps.items()
        },
    }


def slow(found: Found, name: str, limit: float) -> str:
    return f"{name} is {found[name]} s, and {limit:g} s is promised" if found[name] > limit else ""


def wrong(found: Found) -> str:
    return (
        f"{found['lost']} lost, {found['wrong attempts']} tried too often or too seldom"
        if found["lost"] or found["wrong attempts"]
        else ""
    )


def torn(found: Found) -> str:
    if found["lost"] or found["unexpected"]:
        return f"{found['lost']} lost, {found['unexpected']} unexpected"
    return slow(found, "longest without a confirm, leader-killed", 10)


def delayed(found: Found) -> str:
    return (
        f"{found['not back']} did not come back"
        if found["not back"]
        else slow(found, "late p99", 1)
    )


EXAMS = {
    "crash-points": Exam(
        title="Workers of durable jobs are killed (SIGKILL) at each step of a job",
        sit=lambda node, directory: crash_exam(node, directory, times=CRASHES),
        broken=broken_points,
        is_complete=lambda found: has_runs(found, CRASHES),
    ),
    "store-away": Exam(
        title="Durable jobs of 4 processes while PostgreSQL is away for 30 s",
        sit=lambda node, _: outage_exam(node),
        broken=lambda found: f"{found['wrong']} ended wrong" if found["wrong"] else "",
    ),
    "jobs": Exam(
        title=(
            f"{IN_MEMORY:,} random programmes of durable jobs in memory, "
            f"{IN_DATABASES} in each database"
        ),
        sit=lambda _, directory: jobs_at_random(directory),
        broken=lambda found: "a programme broke a promise" if found["broken promises"] else "",
    ),
    "cluster": Exam(
        title="Three nodes: the queue's leader is killed, isolated or paused in turn",
        sit=cluster,
        broken=torn,
    ),
    "retries": Exam(
        title="10,000 messages with mixed retry waits",
        sit=retries,
        broken=lambda found: wrong(found) or slow(found, "late p99", 1),
    ),
    "loops": Exam(
        title="10,000 messages, each ten times through a retry tier", sit=loops, broken=wrong
    ),
    "neighbours": Exam(
        title=(
            "Retries of a service while another's queue is full, deleted or failing "
            f"for {TROUBLE // 60} min each"
        ),
        sit=neighbours,
        broken=delayed,
    ),
    "herd": Exam(
        title="200 clients while their broker is killed and started",
        sit=herd,
        broken=lambda found: slow(found, "all back", 15),
    ),
    "poison": Exam(
        title="1,000,000 fuzzed messages decoded, 50,000 sent through the broker",
        sit=poison,
        broken=lambda found: (
            ""
            if found["dead"] == found["sent"] and not found["restarts"]
            else "not all were dead-lettered"
        ),
    ),
}
