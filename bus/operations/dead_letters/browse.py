"""Reading of dead letters.

A reader receives the dead letters through consumers. When the reader is closed, the reader requeues
all dead letters that were not acked.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from bus.errors import BusError, ConnectionLost, NotFound, Unavailable
from bus.messaging.fault_record import read_record
from bus.messaging.ports.transport import ConsumerHandle, Delivery, Transport
from bus.messaging.topology.consumer_spec import ConsumerSpec
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
"""Default maximum number of dead letters to read from a queue.

The dead letters and their bodies are held in memory.
"""
NEXT_DELIVERY_SECONDS = 5.0
"""Maximum seconds to wait for the next dead letter before the counted number has arrived.

The counted number is the number of dead letters that the broker reported at the beginning.

If another consumer takes dead letters from the queue, fewer dead letters arrive than the broker
counted.
"""
UNCOUNTED_DELIVERY_SECONDS = 0.3
"""Maximum seconds to wait for one more dead letter after the counted number has arrived."""
MAX_UNCOUNTED = 10_000
"""Maximum number of dead letters to read after the counted number has arrived.

If a failing service adds dead letters without a pause, the reader stops at this limit.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowseResult:
    """The result of browsing one queue."""

    letters: tuple[DeadLetter, ...]
    """The oldest dead letters that match the selection. Sorted by time of dead-lettering."""
    matching: int
    """Number of dead letters that match the selection. It can exceed the length of `letters`."""
    not_scanned: int
    """Number of dead letters in the queue that were not read."""
    seen: ObservedValues
    """Types, error codes and ids of the dead letters that were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDelivery:
    """A dead letter, and its unacked delivery. An ack deletes the dead letter permanently."""

    letter: DeadLetter
    delivery: Delivery


class DeadLetterReader:
    """A reader of one dead-letter queue. It requeues dead letters in their original order."""

    def __init__(self, transport: Transport, queue: str, ready: int, hold: int) -> None:
        self.ready = ready
        """Number of dead letters that the broker counted at the beginning, or at the last count.

        The number can be too low, because the broker counts requeued messages with a delay. So the
        reader counts again after the counted number has arrived.
        """
        self._transport = transport
        self._queue = Queue(name=queue, role="dead")
        self._hold = hold
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._consumers: list[ConsumerHandle] = []
        self._seen = 0
        self._kept: list[Delivery] = []

    async def consume(self) -> None:
        """Start a consumer that can receive `hold` more dead letters.

        Earlier consumers stay open, because they hold the kept dead letters. Kept dead letters are
        unacked.

        Raises:
            Unavailable: The queue cannot be read.
        """
        spec = ConsumerSpec(queue=self._queue, topology=Topology(), prefetch=self._hold)
        consumer = await self._transport.consume(spec, self._arrived.put_nowait)
        self._consumers.append(consumer)
        try:
            async with asyncio.timeout(NEXT_DELIVERY_SECONDS):
                await consumer.wait_ready()
        except TimeoutError:
            raise Unavailable(
                f"{consumer.name} cannot be read: {consumer.last_error or 'no answer'}"
            ) from None

    async def letters(self) -> AsyncIterator[HeldDelivery]:
        """Yield dead letters until no more arrive. The caller must ack or `hold` each one."""
        most = self.ready + MAX_UNCOUNTED
        while self._seen < most:
            if len(self._kept) >= self._hold * len(self._consumers):
                await self._consumers[-1].cancel()
                await self.consume()
            try:
                async with asyncio.timeout(
                    NEXT_DELIVERY_SECONDS if self._seen < self.ready else UNCOUNTED_DELIVERY_SECONDS
                ):
                    delivery = await self._arrived.get()
            except TimeoutError:
                if self._seen < self.ready or not await self._count_late():
                    return
                continue
            self._seen += 1
            yield HeldDelivery(
                letter=_to_dead_letter(delivery, self._queue.name), delivery=delivery
            )

    async def _count_late(self) -> int:
        """Count again, and return the number of dead letters that have not arrived."""
        left = await self.not_scanned()
        self.ready = self._seen + left
        return left

    async def matching(
        self, fits: Callable[[DeadLetter], bool], most: int
    ) -> AsyncIterator[HeldDelivery]:
        """Yield the selected dead letters, and hold the other dead letters.

        Args:
            fits: Function that returns True if a dead letter is selected.
            most: Maximum number of held dead letters. At this number the generator stops.
        """
        async for held in self.letters():
            if fits(held.letter):
                yield held
            elif self.hold(held) >= most:
                return

    def hold(self, held: HeldDelivery) -> int:
        """Keep a dead letter until the reader is closed. Return the number of kept dead letters.

        If the reader requeued the dead letter earlier, the broker would deliver it to the reader
        again.
        """
        self._kept.append(held.delivery)
        return len(self._kept)

    async def not_scanned(self) -> int:
        """Return the number of dead letters in the queue that were not read."""
        return await self._transport.depth(self._queue.name) + self._arrived.qsize()

    async def close(self) -> bool:
        """Requeue all delivered dead letters that were not removed, in the order of their delivery.

        Returns:
            False if the connection was lost before all dead letters were requeued.
        """
        for consumer in self._consumers:
            # `cancel` fails if the connection was lost. If the connection was lost, the broker
            # requeues all unacked dead letters by itself.
            with suppress(BusError):
                await consumer.cancel()
        while not self._arrived.empty():
            self._kept.append(self._arrived.get_nowait())
        # Requeue the dead letters before the consumers are closed. If a consumer's channel closed
        # first, the broker would count the delivery as a failure of the consumer.
        requeued = [await delivery.requeue() for delivery in self._kept]
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        return all(requeued)


@asynccontextmanager
async def open_reader(
    transport: Transport, dead_queue: str, *, hold: int
) -> AsyncIterator[DeadLetterReader]:
    """Open a reader. At the end of the `async with` block, requeue all unacked dead letters.

    Args:
        transport: Connection to the broker.
        dead_queue: Name of the dead-letter queue.
        hold: Maximum number of unacked dead letters. Dead letters that the caller passes to
            `reader.hold` do not count.

    Raises:
        NotFound: The queue does not exist.
        Unavailable: The queue cannot be read.
        ConnectionLost: The connection was lost during the `async with` block. Some dead letters
            can be delivered twice.
    """
    reader, requeued = (
        DeadLetterReader(transport, dead_queue, await transport.depth(dead_queue), hold),
        False,
    )
    try:
        await reader.consume()
        yield reader
    finally:
        requeued = await reader.close()
    if not requeued:
        raise ConnectionLost(
            f"the connection was lost while reading {dead_queue}. Try again: dead letters that "
            "were not acked are still in the queue."
        )


async def browse(
    transport: Transport, queue: str, selection: Selection = EVERYTHING, *, limit: int = MAX_BROWSED
) -> list[DeadLetter]:
    """Return selected dead letters of a work queue.

    The result is sorted by the time of dead-lettering. The dead letters stay in their queue.

    Args:
        transport: Connection to the broker.
        queue: Name of the work queue.
        selection: Dead letters to return.
        limit: Maximum number of dead letters to return.

    Raises:
        NotFound: The queue has no dead-letter queue.
        Unavailable: The dead-letter queue cannot be read.
        ConnectionLost: The connection was lost while the queue was read.
    """
    try:
        result = await browse_queue(transport, dead_letter_queue(queue), selection, limit=limit)
    except NotFound:
        raise NotFound(
            f"{queue} has no dead-letter queue. Name the queue of a job or of a subscription."
        ) from None
    return [*result.letters]


async def browse_queue(
    transport: Transport,
    dead_queue: str,
    selection: Selection = EVERYTHING,
    *,
    limit: int = MAX_BROWSED,
    most: int = MAX_BROWSED,
) -> BrowseResult:
    """Read the dead letters of a queue. Return the oldest selected dead letters.

    The function always reads up to `most` dead letters, even if `limit` is lower. The broker puts
    requeued messages behind messages that were requeued before. If the function read only a part of
    the queue, the next call would read another part.

    Args:
        transport: Connection to the broker.
        dead_queue: Name of the dead-letter queue.
        selection: Dead letters to return.
        limit: Maximum number of dead letters to return.
        most: Maximum number of dead letters to read.

    Raises:
        NotFound: The queue does not exist.
        Unavailable: The queue cannot be read.
        ConnectionLost: The connection was lost while the queue was read.
    """
    letters: list[DeadLetter] = []
    seen = ObservedValues()
    async with open_reader(transport, dead_queue, hold=most) as reader:
        async for held in reader.letters():
            seen.note(held.letter, selection)
            if selection.fits(held.letter):
                letters.append(held.letter)
            if reader.hold(held) >= most:
                break
        not_scanned = await reader.not_scanned()
    letters.sort(key=lambda letter: letter.record.last_at or 0)
    return BrowseResult(
        letters=tuple(letters[:limit]), matching=len(letters), not_scanned=not_scanned, seen=seen
    )


def _to_dead_letter(delivery: Delivery, dead_queue: str) -> DeadLetter:
    envelope, notes = delivery.envelope, delivery.broker_headers
    record = read_record(envelope, notes, work_queue=work_queue(dead_queue))
    return DeadLetter(envelope=envelope, record=record, dead_queue=dead_queue, notes=notes)
