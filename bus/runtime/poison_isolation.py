"""Messages that may have killed their process run alone in this one, so that another death takes no neighbour along.

Nothing is handed back for it: before RabbitMQ 4.3 that would count against the neighbours. ADR 0017 has the reasons.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import randrange
from typing import Protocol

from bus.messaging.ports.transport import Delivery
from bus.messaging.supervision import run_forever

__all__ = [
    "POISON_AFTER_DELIVERIES",
    "PausableConsumer",
    "PoisonCandidate",
    "PoisonIsolation",
    "SerialRunner",
    "delivery_count",
    "is_poison_candidate",
    "next_candidate",
]

log = logging.getLogger("bus.quarantine")

POISON_AFTER_DELIVERIES = 2
"""Losses. The first is no evidence: a stop, a lost connection and a neighbour's death count as much as a message's own doing."""


def delivery_count(delivery: Delivery) -> int | None:
    """How often it was delivered before and not settled, as the broker counts; None where its queue does not count (a classic one)."""
    count = delivery.broker_headers.get("x-delivery-count")
    return count if isinstance(count, int) else None


def is_poison_candidate(delivery: Delivery) -> bool:
    """Whether it may have killed its process."""
    return delivery.redelivered and (delivery_count(delivery) or 0) >= POISON_AFTER_DELIVERIES


RESUME_DELAY_SECONDS = 0.05
"""Seconds that the others stay halted after a suspect for the next one: what a dead process held comes back in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonCandidate:
    """A message that waits to be run alone."""

    queue: str
    id: str
    losses: int
    run: Callable[[], Awaitable[None]]
    """Run it; returns when it has ended."""


def next_candidate(suspects: Sequence[PoisonCandidate]) -> PoisonCandidate:
    """Who is run next: the least suspicious, so that it is done before a worse one can take it along.

    Of several that are equal another one each time: their losses rise together while the culprit is before the others.
    """
    least = min(suspect.losses for suspect in suspects)
    equal = sorted(
        (suspect for suspect in suspects if suspect.losses == least),
        key=lambda suspect: suspect.queue,
    )
    return equal[least % len(equal)]


class SerialRunner:
    """Runs what may have killed its process where nobody counts: one at a time, and each time another one first.

    So a message that kills its process does not keep those behind it from ever being run.
    """

    def __init__(self, pick: Callable[[int], int] = randrange) -> None:
        """`pick` chooses among so many."""
        self._pick = pick
        self._waiting: list[Callable[[], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run it when its turn comes; `run` returns when it has ended."""
        self._waiting.append(run)
        if self._task is None:
            self._task = asyncio.create_task(self._run_all(), name="single file")

    async def _run_all(self) -> None:
        while self._waiting:
            await self._waiting.pop(self._pick(len(self._waiting)))()
        self._task = None


class PausableConsumer(Protocol):
    """What a queue brings into this process."""

    @property
    def name(self) -> str:
        """The queue's name."""
        ...

    @property
    def counts_deliveries(self) -> bool:
        """Whether a loss counts against its messages: events and jobs. A request's caller would only wait."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing comes, and nothing runs."""
        ...

    async def pause(self) -> None:
        """No further deliveries; returns when what was delivered has ended, but for suspects."""
        ...

    async def resume(self) -> None:
        """Deliveries again."""
        ...


class PoisonIsolation:
    """One process's: it clears the place for each suspect, runs it, and lets the others in again."""

    def __init__(self) -> None:
        self.intakes: Sequence[PausableConsumer] = ()
        """Whom it halts; events and jobs always, requests only for a suspect of their own."""
        self._suspects: list[PoisonCandidate] = []
        self._halted: list[PausableConsumer] = []
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on suspects are run."""
        self._task = asyncio.create_task(
            run_forever(self._step, expected=(), on_error=_ignore), name="quarantine"
        )

    def add(self, suspect: PoisonCandidate) -> None:
        """A suspect was delivered."""
        self._suspects.append(suspect)
        self._wanted.set()

    async def stop(self) -> None:
        """Run no more of them; one that runs goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _step(self) -> None:
        while True:
            if not self._halted:  # else this begins anew after a fault, and who is halted waits
                await self._wanted.wait()
            while self._suspects:
                await self._run_next()
                await self._wait_for_next()
            while self._halted:
                await self._halted[-1].resume()
                self._halted.pop()
            if not self._suspects:  # one may have come with the first that was resumed
                self._wanted.clear()

    async def _run_next(self) -> None:
        while to_halt := [
            intake for intake in self.intakes if self._must_pause(intake) and not intake.is_idle
        ]:
            self._halted += [intake for intake in to_halt if intake not in self._halted]
            await asyncio.gather(*(intake.pause() for intake in to_halt))
        suspect = next_candidate(self._suspects)
        self._suspects.remove(suspect)
        facts = {"queue": suspect.queue, "message_id": suspect.id, "losses": suspect.losses}
        log.warning("a message whose process ended before it is run alone", extra=facts)
        await suspect.run()

    async def _wait_for_next(self) -> None:
        if not self._suspects:
            self._wanted.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(RESUME_DELAY_SECONDS):
                    await self._wanted.wait()

    def _must_pause(self, intake: PausableConsumer) -> bool:
        return intake.counts_deliveries or any(
            suspect.queue == intake.name for suspect in self._suspects
        )


def _ignore(_error: BaseException) -> None:
    """`supervised` has logged it."""
