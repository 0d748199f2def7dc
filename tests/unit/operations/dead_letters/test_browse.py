"""Reading of dead letters that the broker counts late."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from typing_extensions import override

from bus.messaging.ports.transport import ConsumerHandle, Delivery
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.operations.dead_letters.browse import UNCOUNTED_DELIVERY_SECONDS, browse_queue
from tests.unit.fakes import FakeDelivery, FakeTransport, envelope, virtual

DEAD = "ledger.jobs.close.v1.dead"


@dataclass
class LateTransport(FakeTransport):
    """A transport to a queue whose dead letters another reader has just requeued.

    The broker first counts none of them. It delivers them after `seconds`.
    """

    counts: list[int] = field(default_factory=list)
    """The next answers of the broker. The last one is repeated."""
    letters: int = 2
    seconds: float = 4 * UNCOUNTED_DELIVERY_SECONDS

    @override
    async def depth(self, queue: str) -> int:
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    @override
    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        for number in range(self.letters):
            letter = FakeDelivery(envelope("ledger.close.v1", role="job", id=f"m-{number}"))
            asyncio.get_running_loop().call_later(self.seconds, on_delivery, letter)
        return await super().consume(spec, on_delivery)


@virtual
async def test_dead_letters_that_are_counted_late_are_read() -> None:
    found = await browse_queue(LateTransport(counts=[0, 2, 0]), DEAD)
    assert [letter.id for letter in found.letters] == ["m-0", "m-1"]
    assert found.not_scanned == 0


@virtual
async def test_dead_letters_that_another_reader_holds_are_not_waited_for_without_end() -> None:
    found = await browse_queue(LateTransport(counts=[0, 2], letters=0), DEAD)
    assert (found.letters, found.not_scanned) == ((), 2)
    assert asyncio.get_running_loop().time() < 10


@virtual
async def test_an_empty_queue_is_read_in_a_moment() -> None:
    await browse_queue(LateTransport(counts=[0], letters=0), DEAD)
    assert asyncio.get_running_loop().time() < 2 * UNCOUNTED_DELIVERY_SECONDS
