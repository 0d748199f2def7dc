"""Reading of several dead-letter queues by one command of `bus dead`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus.cli.dead import queues as module
from bus.cli.dead.queues import MAX_CONCURRENT_READERS, IgnoredReturns, browse_all
from bus.errors import NotFound
from bus.messaging.ports.transport import Transport
from bus.messaging.topology.addresses import dead_letter_address
from bus.messaging.topology.model import Binding, Exchange, Queue, Topology
from bus.messaging.topology.names import DEAD as DEAD_EXCHANGE
from bus.messaging.topology.names import dead_letter_queue
from bus.operations.dead_letters import EVERYTHING, BrowseResult, ObservedValues, Selection
from bus.operations.dead_letters.browse import UNCOUNTED_DELIVERY_SECONDS
from bus.transports.memory import MemoryBroker, MemoryTransport
from tests.unit.fakes import envelope, virtual

WORK = [f"library.jobs.scan-{number}.v1" for number in range(MAX_CONCURRENT_READERS)]
DEAD = [dead_letter_queue(name) for name in WORK]


@asynccontextmanager
async def with_one_dead_letter_each() -> AsyncIterator[Transport]:
    """Yield a transport to a broker. Each queue has a dead letter, the first queue the newest."""
    transport = MemoryTransport(MemoryBroker())
    await transport.start(IgnoredReturns(), timeout=5)
    queues = tuple(Queue(name=name, role="dead") for name in DEAD)
    exchange = Exchange(name=DEAD_EXCHANGE, kind="direct")
    bindings = tuple(
        Binding(exchange=DEAD_EXCHANGE, queue=dead, routing_key=work)
        for work, dead in zip(WORK, DEAD, strict=True)
    )
    await transport.declare(Topology(exchanges=(exchange,), queues=queues, bindings=bindings))
    for place, name in enumerate(WORK):
        headers: dict[str, str | int] = {"dead-code": "internal", "dead-at": 1_000 - place}
        letter = envelope("library.scan.v1", role="job", id=f"m-{place}", headers=headers)
        await transport.send(letter, dead_letter_address(name), timeout=5)
    try:
        yield transport
    finally:
        await transport.close()


@virtual
async def test_several_queues_are_read_at_the_same_time_and_listed_oldest_first() -> None:
    loop = asyncio.get_running_loop()
    async with with_one_dead_letter_each() as transport:
        started = loop.time()
        result = await browse_all(transport, DEAD, EVERYTHING, scan=10)
        assert loop.time() - started < 2 * UNCOUNTED_DELIVERY_SECONDS
        expected = [f"m-{place}" for place in reversed(range(len(WORK)))]
        assert [letter.id for letter in result.letters] == expected


@virtual
async def test_a_missing_queue_is_an_error_after_the_other_queues_have_their_letters_again() -> (
    None
):
    async with with_one_dead_letter_each() as transport:
        with pytest.raises(NotFound):
            await browse_all(transport, ["nowhere.dead", *DEAD[:3]], EVERYTHING, scan=10)
        assert [await transport.depth(name) for name in DEAD[:3]] == [1, 1, 1]


@virtual
async def test_the_number_of_queues_that_are_read_at_the_same_time_is_limited() -> None:
    reading, most = 0, 0

    async def count(*_: object, **__: object) -> BrowseResult:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(1)
        reading -= 1
        return BrowseResult(letters=(), matching=0, not_scanned=0, seen=ObservedValues())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "browse_queue", count)
        transport = MemoryTransport(MemoryBroker())
        names = [f"{number}.dead" for number in range(3 * MAX_CONCURRENT_READERS)]
        await browse_all(transport, names, Selection(), scan=10)
    assert most == MAX_CONCURRENT_READERS
