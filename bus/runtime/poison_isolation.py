"""Poison isolation: a message that may have crashed an earlier process is processed alone.

Before the message runs, the process waits until the other running events and jobs have ended. The
running messages are not requeued, because before RabbitMQ 4.3 each requeue counts as a lost
delivery. If the message crashes the process, the broker counts a lost delivery only for the message
and for each waiting candidate. Other events and jobs are not affected. ADR 0017 has the reasons.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import randrange
from typing import Protocol

from bus.messaging.labels import short_id
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
"""The number of lost deliveries that makes a message a candidate. A single lost delivery
proves nothing, because its cause may be a stop, a lost connection or another message."""


def delivery_count(delivery: Delivery) -> int | None:
    """Return the number of lost deliveries, or None for a classic queue, which has no count."""
    count = delivery.broker_headers.get("x-delivery-count")
    return count if isinstance(count, int) else None


def is_poison_candidate(delivery: Delivery) -> bool:
    """Return True if the message may have crashed an earlier process."""
    return delivery.redelivered and (delivery_count(delivery) or 0) >= POISON_AFTER_DELIVERIES


RESUME_DELAY_SECONDS = 0.05
"""Seconds to keep the other consumers paused after a candidate has run. The broker redelivers all
messages of an ended process in a row, so the next candidate may arrive within this time."""


class PoisonCandidate:
    """A message that waits for its turn to be processed alone."""

    def __init__(self, *, queue: str, id: str, losses: int) -> None:  # noqa: A002 - id of the message
        """Create a candidate. `losses` is the broker's count of lost deliveries."""
        self.queue = queue
        self.id = id
        self.losses = losses
        self.is_waiting = True
        """True until the message starts or is refused."""
        self._is_granted = False
        self._decided = asyncio.Event()
        self._ended = asyncio.Event()

    async def wait_turn(self) -> bool:
        """Wait for the message's turn. Return False if the message must be requeued instead."""
        try:
            await self._decided.wait()
        finally:
            self.is_waiting = False
        return self._is_granted

    async def run(self) -> None:
        """Start the message, and wait until it has ended."""
        self._is_granted = True
        self._decided.set()
        await self._ended.wait()

    def refuse(self) -> None:
        """Make `wait_turn` return False, so that the message is requeued."""
        self._decided.set()

    def end(self) -> None:
        """Report that the message has ended."""
        self._ended.set()


class TurnQueue(Protocol):
    """Interface of a queue in which candidates wait for their turn."""

    def add(self, candidate: PoisonCandidate) -> None:
        """Add a candidate."""
        ...

    def discard(self, candidate: PoisonCandidate) -> None:
        """Remove a candidate if it is still waiting."""
        ...


class CandidateQueue:
    """The poison candidates of all endpoints of one process."""

    def __init__(self) -> None:
        self.waiting: list[PoisonCandidate] = []
        self.running: PoisonCandidate | None = None
        """The candidate that is processed alone now."""
        self.arrived = asyncio.Event()
        """Set when a candidate is added."""

    @property
    def current(self) -> PoisonCandidate | None:
        """The candidate that is processed alone now, or else the one that is next."""
        return self.running or (next_candidate(self.waiting) if self.waiting else None)

    def add(self, candidate: PoisonCandidate) -> None:
        """Add a candidate, and wake `PoisonIsolation`."""
        self.waiting.append(candidate)
        self.arrived.set()

    def discard(self, candidate: PoisonCandidate) -> None:
        """Remove a candidate if it is still waiting."""
        if candidate in self.waiting:
            self.waiting.remove(candidate)


def next_candidate(candidates: Sequence[PoisonCandidate]) -> PoisonCandidate:
    """Return the candidate to run next, which has the fewest lost deliveries.

    If several candidates have this number of lost deliveries, the index of the selected candidate
    is this number modulo the number of these candidates. If the selected candidate crashes the
    process, each candidate has one more lost delivery. The next process therefore selects another
    candidate.
    """
    fewest = min(candidate.losses for candidate in candidates)
    equal = sorted(
        (candidate for candidate in candidates if candidate.losses == fewest),
        key=lambda candidate: candidate.queue,
    )
    return equal[fewest % len(equal)]


class SerialRunner:
    """Runs redeliveries from queues without a delivery count, one at a time and in random order.

    In a fixed order, a message that crashes its process could block the other messages forever.
    """

    def __init__(self, pick: Callable[[int], int] = randrange) -> None:
        """Create a runner. `pick` receives the number of candidates, and returns the next index."""
        self._pick = pick
        self._waiting: list[PoisonCandidate] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, candidate: PoisonCandidate) -> None:
        """Add a candidate, and start the runner if it is idle."""
        self._waiting.append(candidate)
        if self._task is None:
            self._task = asyncio.create_task(self._run_all(), name="serial runner")

    def discard(self, candidate: PoisonCandidate) -> None:
        """Remove a candidate if it is still waiting."""
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
        """True if lost deliveries count toward a delivery limit, as for events and jobs."""
        ...

    @property
    def is_idle(self) -> bool:
        """True if no delivery arrives and no message runs."""
        ...

    async def pause(self) -> None:
        """Stop deliveries, and wait until all messages except candidates have ended."""
        ...

    async def resume(self) -> None:
        """Start deliveries again."""
        ...


class PoisonIsolation:
    """Processes each poison candidate while the other consumers of this process are paused."""

    def __init__(self, candidates: CandidateQueue, consumers: Sequence[PausableConsumer]) -> None:
        """Create an isolation that pauses `consumers` while it runs each of `candidates`.

        Consumers of events and jobs are paused for every candidate. A consumer of requests is
        paused only for a candidate from the same queue.
        """
        self._candidates = candidates
        self._consumers = consumers
        self._paused: list[PausableConsumer] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that runs the candidates."""
        self._task = asyncio.create_task(
            run_forever(self._step, expected=(), on_error=_ignore), name="poison isolation"
        )

    async def stop(self) -> None:
        """Do not start any more candidates. A candidate that is already running continues."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _step(self) -> None:
        arrived = self._candidates.arrived
        while True:
            # If consumers are still paused, the previous run of this step has failed. Do not wait
            # for a candidate, because the consumers must be resumed.
            if not self._paused:
                await arrived.wait()
            while self._candidates.waiting:
                await self._run_next()
                await self._wait_for_next()
            while self._paused:
                await self._paused[-1].resume()
                self._paused.pop()
            if not self._candidates.waiting:  # a resumed consumer may have added a candidate
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
            return  # the service is stopping, and has requeued all candidates
        candidate = next_candidate(self._candidates.waiting)
        self._candidates.discard(candidate)
        facts = {
            "queue": candidate.queue,
            "message_id": candidate.id,
            "losses": candidate.losses,
        }
        log.warning(
            "message %s in %s was lost with its process or connection %d times; "
            "the message is processed alone",
            short_id(candidate.id),
            candidate.queue,
            candidate.losses,
            extra=facts,
        )
        self._candidates.running = candidate
        try:
            await candidate.run()
        finally:
            self._candidates.running = None

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
    """Do nothing, because `run_forever` has already logged the error."""
