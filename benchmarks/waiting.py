"""Memory and cost of a consumer while nothing waits in its queue, and while a million messages do."""

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
"""Of those, by each."""
EMPTY = 10_000
"""Messages that pass an otherwise empty queue, for comparison."""
CHUNK = 25_000
LIMIT = 40.0
"""Seconds for each; who is slower consumes fewer."""
FILLING = 150.0
"""Seconds that the filling may take; what is there then is measured, and named."""
QUEUE = "sink.events.{service}.happened.v1"
"""Our subscription's; the peers consume from the same queue."""
WHO = (OURS, AIO_PIKA, FASTSTREAM)
LOOK = 0.05
"""Seconds between two looks at a process's memory."""


async def waiting(run: Run) -> dict[str, Rounds]:
    """Two works, one sample for each peer: `waiting0` and `waiting1000000`."""
    empty: Rounds = {}
    full: Rounds = {}
    async with run.actor(run.peers[OURS], "publish") as source, run.actor(run.peers[OURS], "publish") as second:
        async with run.actor(run.peers[OURS], "consume"):
            pass  # the queue is there now
        for peer in run.who(WHO):
            empty[peer.key] = [await passing(run, peer, source)]
        there = await filled(run, [source, second])
    for peer in run.who(WHO):
        async with consumer(run, peer) as sink:
            sample = await watched(
                sink, measured(run, sink, "consume", {"consumer": sink.pids}, count=min(CONSUMED, there // 4), limit=LIMIT)
            )
            full[peer.key] = [{**sample, "waiting": there}]
        run.say(f"bench: waiting    {peer.key}: {sample['rate']:,.0f}/s, {sample['rss']:.1f} MB beside {empty[peer.key][0]['rss']:.1f} MB")
    return {"waiting0": empty, "waiting1000000": full}


def consumer(run: Run, peer: Peer) -> Actor:
    """A fresh process on our subscription's queue."""
    return (
        run.actor(peer, "consume") if peer.key == OURS else run.actor(peer, "consume", QUEUE.format(service=run.service(run.peers[OURS])))
    )


async def passing(run: Run, peer: Peer, source: Actor) -> Sample:
    """The consumer takes messages as they are published."""
    async with consumer(run, peer) as sink, asyncio.TaskGroup() as group:
        coming = group.create_task(watched(sink, measured(run, sink, "consume", {"consumer": sink.pids}, count=EMPTY)))
        await asyncio.sleep(0.5)  # it is there first
        await source.tell("publish", in_flight=200, count=EMPTY)
        return await coming


async def watched(actor: Actor, work: Any) -> Sample:
    """The work's sample with the most memory that the process had meanwhile, and what it had when a tenth of the time was over."""
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
    """Publish until a million wait, or time is up."""
    there, until = 0, time.monotonic() + FILLING
    while there < WAITING and time.monotonic() < until:
        sent = await asyncio.gather(*(source.tell("publish", in_flight=500, count=CHUNK) for source in sources))
        there += sum(each["count"] for each in sent)
        if there % (4 * CHUNK) == 0:
            run.say(f"bench: waiting    {there:,} in the queue")
    if there < WAITING:
        run.notes.append(f"Filling the queue took too long here: {there:,} messages waited instead of {WAITING:,}.")
    return there
