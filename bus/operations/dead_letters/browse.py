"""Reading dead letters: they are delivered, and what nobody acks is handed back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from bus.errors import BusError, ConnectionLost, NotFound, Unavailable
from bus.messaging.fault_record import read_record
from bus.messaging.ports.transport import ConsumerHandle, Delivery, Transport
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import dead_letter_queue, work_queue
from bus.operations.dead_letters.selection import EVERYTHING, DeadLetter, ObservedValues, Selection

__all__ = [
    "MAX_BROWSED",
    "BrowseResult",
    "DeadLetterReader",
    "HeldDelivery",
    "browse",
    "browse_queue",
    "open_reader",
]

MAX_BROWSED = 10_000
"""Dead letters of a queue that are looked at where nobody says how many: they are held in memory, bodies and all."""
NEXT_DELIVERY_SECONDS = 5.0
"""Seconds for the next one to come; where another takes them from the same queue, fewer come than there were."""
UNCOUNTED_DELIVERY_SECONDS = 0.3
"""Seconds for one to come that the broker had not counted."""
MAX_UNCOUNTED = 10_000
"""Those that were not counted may be so many; after that it ends, although a service that fails without a pause makes new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowseResult:
    """What a look into one queue found."""

    letters: tuple[DeadLetter, ...]
    """The first of those that were meant, by the time of their death."""
    matching: int
    """How many were meant."""
    not_scanned: int
    """How many more were in the queue, and were not looked at."""
    seen: ObservedValues
    """What all that were looked at have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDelivery:
    """A dead letter that is held: acked it is gone for good."""

    letter: DeadLetter
    delivery: Delivery


class DeadLetterReader:
    """What is in one queue, in the queue's order."""

    def __init__(self, transport: Transport, queue: str, ready: int, hold: int) -> None:
        self.ready = ready
        """How many there were at the beginning, as the broker counts: what was handed back a moment ago may be missing."""
        self._transport = transport
        self._queue = Queue(name=queue, role="dead")
        self._hold = hold
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._consumptions: list[ConsumerHandle] = []
        self._seen = 0
        self._kept: list[Delivery] = []

    async def consume(self) -> None:
        """Take `hold` more; those that are kept stay with the consumer that took them."""
        consumption = await self._transport.consume(
            self._queue, Topology(), prefetch=self._hold, on_delivery=self._arrived.put_nowait
        )
        self._consumptions.append(consumption)
        try:
            async with asyncio.timeout(NEXT_DELIVERY_SECONDS):
                await consumption.wait_ready()
        except TimeoutError:
            raise Unavailable(
                f"{consumption.name} cannot be read: {consumption.last_error or 'no answer'}"
            ) from None

    async def letters(self) -> AsyncIterator[HeldDelivery]:
        """Those that come, until none does. Each is to be acked, or kept."""
        while self._seen < self.ready + MAX_UNCOUNTED:
            if len(self._kept) >= self._hold * len(self._consumptions):
                await self._consumptions[-1].cancel()
                await self.consume()
            try:
                async with asyncio.timeout(
                    NEXT_DELIVERY_SECONDS if self._seen < self.ready else UNCOUNTED_DELIVERY_SECONDS
                ):
                    delivery = await self._arrived.get()
            except TimeoutError:
                return
            self._seen += 1
            yield HeldDelivery(letter=_letter(delivery, self._queue.name), delivery=delivery)

    async def matching(
        self, fits: Callable[[DeadLetter], bool], most: int
    ) -> AsyncIterator[HeldDelivery]:
        """Those that fit; the others are kept, at most so many."""
        async for taken in self.letters():
            if fits(taken.letter):
                yield taken
            elif self.hold(taken) >= most:
                return

    def hold(self, taken: HeldDelivery) -> int:
        """It goes back when the reading ends: sooner it would come again at once. How many are kept."""
        self._kept.append(taken.delivery)
        return len(self._kept)

    async def not_scanned(self) -> int:
        """How many are in the queue beside those that came."""
        return await self._transport.depth(self._queue.name) + self._arrived.qsize()

    async def close(self) -> bool:
        """Give back what is kept and what nobody looked at, in their order; whether the connection was the same all the time."""
        for consumption in self._consumptions:
            with suppress(BusError):  # where the connection is gone everything has gone back
                await consumption.cancel()
        while not self._arrived.empty():
            self._kept.append(self._arrived.get_nowait())
        # By hand, and not by closing the channel: that counts as a consumer that failed.
        same = [await delivery.requeue() for delivery in self._kept]
        await asyncio.gather(*(consumption.close() for consumption in self._consumptions))
        return all(same)


@asynccontextmanager
async def open_reader(
    transport: Transport, dead_queue: str, *, hold: int
) -> AsyncIterator[DeadLetterReader]:
    """Read in the block, with at most `hold` unacked beside those that are kept; what was not acked goes back at its end.

    Raises `NotFound` where there is no such queue, `Unavailable` where it cannot be consumed, and `ConnectionLost` at the
    end where the connection went meanwhile: then some may have come twice.
    """
    letters, same = (
        DeadLetterReader(transport, dead_queue, await transport.depth(dead_queue), hold),
        False,
    )
    try:
        await letters.consume()
        yield letters
    finally:
        same = await letters.close()
    if not same:
        raise ConnectionLost(
            f"the connection went while reading {dead_queue}; what was not acked is still there"
        )


async def browse(
    transport: Transport, queue: str, selection: Selection = EVERYTHING, *, limit: int = MAX_BROWSED
) -> list[DeadLetter]:
    """The first `limit` dead letters of the work queue `queue` that are meant, by the time of death; they stay where they are.

    Raises `NotFound` where the queue has no dead-letter queue, `ConnectionLost` where the look was interrupted, `Unavailable`.
    """
    try:
        looked = await browse_queue(transport, dead_letter_queue(queue), selection, limit=limit)
    except NotFound:
        raise NotFound(
            f"{queue} has no dead-letter queue; is it the name of a job's or subscription's queue?"
        ) from None
    return [*looked.letters]


async def browse_queue(
    transport: Transport,
    dead_queue: str,
    selection: Selection = EVERYTHING,
    *,
    limit: int = MAX_BROWSED,
    most: int = MAX_BROWSED,
) -> BrowseResult:
    """Look at `most` dead letters, and bring the first `limit` of those that are meant; `look` says what is raised.

    More than `limit` are looked at, because what is handed back goes behind what was handed back before: who looks at a
    part of a queue turns it round, and sees another part the next time.
    """
    found: list[DeadLetter] = []
    seen = ObservedValues()
    async with open_reader(transport, dead_queue, hold=most) as letters:
        async for taken in letters.letters():
            seen.note(taken.letter, selection)
            if selection.fits(taken.letter):
                found.append(taken.letter)
            if letters.hold(taken) >= most:
                break
        unseen = await letters.not_scanned()
    found.sort(key=lambda letter: letter.record.last_at or 0)
    return BrowseResult(
        letters=tuple(found[:limit]), matching=len(found), not_scanned=unseen, seen=seen
    )


def _letter(delivery: Delivery, dead_queue: str) -> DeadLetter:
    envelope, notes = delivery.envelope, delivery.broker_headers
    record = read_record(envelope, notes, work_queue=work_queue(dead_queue))
    return DeadLetter(envelope=envelope, record=record, dead_queue=dead_queue, notes=notes)
