"""Poison isolation: a message that may have ended its process is processed alone.

If it ends this process too, no other message is lost with it. No message is requeued for that: before
RabbitMQ 4.3 a requeue would count against the other messages. ADR 0017 has the reasons.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import randrange
from typing import Protocol

from bus.messaging.ports.transport import Delivery
from bus.messaging.supervision import run_forever

__all__ = [
    "POISON_AFTER_DELIVERIES",
    "CandidateQueue",
    "PausableConsumer",
    "PoisonCandidate",
    "PoisonIsolation",
    "SerialRunner",
    "TurnQueue",
    "delivery_count",
    "is_poison_candidate",
    "next_candidate",
]

log = logging.getLogger("bus.quarantine")

POISON_AFTER_DELIVERIES = 2
"""Lost deliveries from which a message is a candidate. One is not evidence: a stop, a lost connection or
another message can have caused it."""


def delivery_count(delivery: Delivery) -> int | None:
    """Return the number of lost deliveries, or None if the queue does not count them (a classic queue)."""
    count = delivery.broker_headers.get("x-delivery-count")
    return count if isinstance(count, int) else None


def is_poison_candidate(delivery: Delivery) -> bool:
    """Return True if the message may have ended a process."""
    return delivery.redelivered and (delivery_count(delivery) or 0) >= POISON_AFTER_DELIVERIES


RESUME_DELAY_SECONDS = 0.05
"""Seconds to keep other consumers paused after a candidate has run. Redeliveries from a process that
ended arrive back to back."""


class PoisonCandidate:
    """A message that waits until it is processed alone."""

    def __init__(self, *, queue: str, id: str, losses: int) -> None:  # noqa: A002 - the message's id
        """`losses` is the number of lost deliveries, as the broker counts them."""
        self.queue = queue
        self.id = id
        self.losses = losses
        self.is_waiting = True
        """False once the message runs, or has been refused."""
        self._is_granted = False
        self._decided = asyncio.Event()
        self._ended = asyncio.Event()

    async def wait_turn(self) -> bool:
        """Wait until the message may run. Return False if it must be requeued instead."""
        try:
            await self._decided.wait()
        finally:
            self.is_waiting = False
        return self._is_granted

    async def run(self) -> None:
        """Let the message run, and wait until it has ended."""
        self._is_granted = True
        self._decided.set()
        await self._ended.wait()

    def refuse(self) -> None:
        """Let the message be requeued."""
        self._decided.set()

    def end(self) -> None:
        """Report that the message has ended."""
        self._ended.set()


class TurnQueue(Protocol):
    """A queue of candidates. Its owner runs them."""

    def add(self, candidate: PoisonCandidate) -> None:
        """Add a candidate."""
        ...

    def discard(self, candidate: PoisonCandidate) -> None:
        """Remove a candidate, if it is still there."""
        ...


class CandidateQueue:
    """The poison candidates of one process, from all of its endpoints."""

    def __init__(self) -> None:
        self.waiting: list[PoisonCandidate] = []
        self.arrived = asyncio.Event()
        """Set when a candidate is added."""

    def add(self, candidate: PoisonCandidate) -> None:
        """Add a candidate, and wake the isolation."""
        self.waiting.append(candidate)
        self.arrived.set()

    def discard(self, candidate: PoisonCandidate) -> None:
        """Remove a candidate, if it is still there."""
        if candidate in self.waiting:
            self.waiting.remove(candidate)


def next_candidate(candidates: Sequence[PoisonCandidate]) -> PoisonCandidate:
    """Return the candidate to run next: one with the fewest losses, so that a worse one cannot stop it.

    Of several with equal losses another one is first each time. Their losses rise together as long
    as the culprit runs before the others.
    """
    fewest = min(candidate.losses for candidate in candidates)
    equal = sorted(
        (candidate for candidate in candidates if candidate.losses == fewest),
        key=lambda candidate: candidate.queue,
    )
    return equal[fewest % len(equal)]


class SerialRunner:
    """Runs redeliveries that the broker does not count, one at a time and in random order.

    The random order keeps a message that ends its process from blocking those behind it forever.
    """

    def __init__(self, pick: Callable[[int], int] = randrange) -> None:
        """`pick` returns an index below the given number."""
        self._pick = pick
        self._waiting: list[PoisonCandidate] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, candidate: PoisonCandidate) -> None:
        """Run a candidate when its turn comes."""
        self._waiting.append(candidate)
        if self._task is None:
            self._task = asyncio.create_task(self._run_all(), name="serial runner")

    def discard(self, candidate: PoisonCandidate) -> None:
        """Remove a candidate, if it is still there."""
        if candidate in self._waiting:
            self._waiting.remove(candidate)

    async def _run_all(self) -> None:
        while self._waiting:
            await self._waiting.pop(self._pick(len(self._waiting))).run()
        self._task = None


class PausableConsumer(Protocol):
    """A consumer that can be paused while a candidate runs."""

    @property
    def name(self) -> str:
        """The name of the queue."""
        ...

    @property
    def counts_deliveries(self) -> bool:
        """True if a lost delivery counts against the message, as for events and jobs."""
        ...

    @property
    def is_idle(self) -> bool:
        """True if no delivery arrives and no message runs."""
        ...

    async def pause(self) -> None:
        """Stop deliveries, and wait until every message has ended that is not a candidate."""
        ...

    async def resume(self) -> None:
        """Start deliveries again."""
        ...


class PoisonIsolation:
    """Pauses the other consumers of this process for each poison candidate, runs it, and resumes them."""

    def __init__(self, candidates: CandidateQueue, consumers: Sequence[PausableConsumer]) -> None:
        """Take candidates from `candidates`, and pause `consumers`.

        Consumers of events and jobs are always paused. A consumer of requests is paused for a
        candidate of its own queue only.
        """
        self._candidates = candidates
        self._consumers = consumers
        self._paused: list[PausableConsumer] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run candidates from now on."""
        self._task = asyncio.create_task(
            run_forever(self._step, expected=(), on_error=_ignore), name="poison isolation"
        )

    async def stop(self) -> None:
        """Run no further candidate. One that runs goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _step(self) -> None:
        arrived = self._candidates.arrived
        while True:
            if not self._paused:  # otherwise a failed step is repeated, and consumers wait for it
                await arrived.wait()
            while self._candidates.waiting:
                await self._run_next()
                await self._wait_for_next()
            while self._paused:
                await self._paused[-1].resume()
                self._paused.pop()
            if not self._candidates.waiting:  # the first consumer that resumed can bring one
                arrived.clear()

    async def _run_next(self) -> None:
        while to_pause := [
            consumer
            for consumer in self._consumers
            if self._must_pause(consumer) and not consumer.is_idle
        ]:
            self._paused += [consumer for consumer in to_pause if consumer not in self._paused]
            await asyncio.gather(*(consumer.pause() for consumer in to_pause))
        if not self._candidates.waiting:
            return  # a stop has requeued them
        candidate = next_candidate(self._candidates.waiting)
        self._candidates.discard(candidate)
        facts = {
            "queue": candidate.queue,
            "message_id": candidate.id,
            "losses": candidate.losses,
        }
        log.warning("a message whose process ended before it is run alone", extra=facts)
        await candidate.run()

    async def _wait_for_next(self) -> None:
        if not self._candidates.waiting:
            self._candidates.arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(RESUME_DELAY_SECONDS):
                    await self._candidates.arrived.wait()

    def _must_pause(self, consumer: PausableConsumer) -> bool:
        return consumer.counts_deliveries or any(
            candidate.queue == consumer.name for candidate in self._candidates.waiting
        )


def _ignore(_error: BaseException) -> None:
    """Do nothing: `run_forever` has logged the error."""
