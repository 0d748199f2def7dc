"""Memory and cost of a consumer with an empty queue, and with a million waiting messages."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from benchmarks.actor import Actor, resident
from benchmarks.peers import AIO_PIKA, FASTSTREAM, OURS, Peer
from benchmarks.works import Rounds, Run, Sample, measured

__all__ = ["CONSUMED", "WAITING", "waiting"]

WAITING = 1_000_000
CONSUMED = 100_000
"""Messages of those that each peer consumes."""
EMPTY = 10_000
"""Messages that pass through an otherwise empty queue, for comparison."""
CHUNK = 25_000
LIMIT = 40.0
"""Seconds for each peer; a slower peer consumes fewer messages."""
FILLING = 150.0
"""Seconds for filling the queue; the run then measures with the messages that are there."""
QUEUE = "sink.events.{service}.happened.v1"
"""The queue of Trunkline's subscription; the peers consume from the same queue."""
WHO = (OURS, AIO_PIKA, FASTSTREAM)
LOOK = 0.05
"""Seconds between two samples of a process's memory."""


async def waiting(run: Run) -> dict[str, Rounds]:
    """Measure `waiting0` and `waiting1000000`, with one sample for each peer."""
    empty: Rounds = {}
    full: Rounds = {}
    async with (
        run.actor(run.peers[OURS], "publish") as source,
        run.actor(run.peers[OURS], "publish") as second,
    ):
        async with run.actor(run.peers[OURS], "consume"):
            pass  # the queue exists now
        for peer in run.who(WHO):
            empty[peer.key] = [await passing(run, peer, source)]
        there = await filled(run, [source, second])
    for peer in run.who(WHO):
        async with consumer(run, peer) as sink:
            sample = await watched(
                sink,
                measured(
                    run,
                    sink,
                    "consume",
                    {"consumer": sink.pids},
                    count=min(CONSUMED, there // 4),
                    limit=LIMIT,
                ),
            )
            full[peer.key] = [{**sample, "waiting": there}]
        run.say(
            f"bench: waiting    {peer.key}: {sample['rate']:,.0f}/s, {sample['rss']:.1f} MB "
            f"beside {empty[peer.key][0]['rss']:.1f} MB"
        )
    return {"waiting0": empty, "waiting1000000": full}


def consumer(run: Run, peer: Peer) -> Actor:
    """Return a fresh process that consumes from the queue of Trunkline's subscription."""
    return (
        run.actor(peer, "consume")
        if peer.key == OURS
        else run.actor(peer, "consume", QUEUE.format(service=run.service(run.peers[OURS])))
    )


async def passing(run: Run, peer: Peer, source: Actor) -> Sample:
    """Measure a consumer while the messages are published."""
    async with consumer(run, peer) as sink, asyncio.TaskGroup() as group:
        coming = group.create_task(
            watched(sink, measured(run, sink, "consume", {"consumer": sink.pids}, count=EMPTY))
        )
        await asyncio.sleep(0.5)  # the consumer must be ready first
        await source.tell("publish", in_flight=200, count=EMPTY)
        return await coming


async def watched(actor: Actor, work: Any) -> Sample:
    """Return the workload's sample with the peak memory of the process.

    The sample also has the memory after a tenth of the time.
    """
    looks: list[float] = []

    async def look() -> None:
        while True:
            looks.append(resident(actor.pid))
            await asyncio.sleep(LOOK)

    looking = asyncio.create_task(look())
    try:
        sample: Sample = await work
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
    return {**sample, "rss": max(looks), "rss_early": looks[len(looks) // 10]}


async def filled(run: Run, sources: list[Actor]) -> int:
    """Publish until a million messages wait or the time is up, and return their number."""
    there, until = 0, time.monotonic() + FILLING
    while there < WAITING and time.monotonic() < until:
        sent = await asyncio.gather(
            *(source.tell("publish", in_flight=500, count=CHUNK) for source in sources)
        )
        there += sum(each["count"] for each in sent)
        if there % (4 * CHUNK) == 0:
            run.say(f"bench: waiting    {there:,} in the queue")
    if there < WAITING:
        run.notes.append(f"Filling the queue was slow: {there:,} messages waited, not {WAITING:,}.")
    return there
