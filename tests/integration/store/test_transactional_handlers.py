"""Whole services with transactional handlers, on each database and the broker in memory."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from bus import Bus, Context, Event, Job, Message, RetryPolicy, Router, contract
from bus.contracts.contract import encode
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.jobs.records import JobKey
from bus.messaging.ports.transport import Accepted
from bus.messaging.topology.addresses import address_of
from bus.operations.dead_letters import EVERYTHING
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.upgrade import upgrade
from bus.testing import MemoryBroker, MemoryTransport
from bus.testing.explicit_settings import ExplicitSettings
from tests.conformance.stores.transactional import add_copy, copies_in, create_stock, rows_in
from tests.conformance.world import Ear, until
from tests.integration.store.test_database import database_at

QUEUE = "bookshelf.events.bookdesk.returned.v1"


@contract("bookdesk.returned", version=1)
class BookReturned(Event):
    title: str = "Emma"


class Count(Message):
    copies: int


@contract("bookshelf.restock", version=1)
class Restock(Job[Count]):
    copies: int = 1


class Services:
    """The instances of one service, each with its own connections to one database."""

    def __init__(self, url: str) -> None:
        self.broker = MemoryBroker()
        self.settings = ExplicitSettings(auth="off", store=SecretStr(url))
        self._open = AsyncExitStack()

    async def bus(self, service: str, settings: ExplicitSettings) -> Bus:
        bus = Bus(service, settings=settings, transport=MemoryTransport(self.broker))
        return await self._open.enter_async_context(bus)

    async def desk(self) -> Bus:
        """Return a bus of another service, which has no store."""
        return await self.bus("bookdesk", ExplicitSettings(auth="off"))

    async def serve(self, router: Router) -> Bus:
        bus = await self.bus(router.name, self.settings)
        await self._open.enter_async_context(bus.serving(router))
        return bus

    async def close(self) -> None:
        await self._open.aclose()


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = database_at(store_url)
    await upgrade(database, "bookshelf")
    await database.write(create_stock)
    yield database
    await database.close()


@pytest.fixture
async def services(database: Database, store_url: str) -> AsyncIterator[Services]:
    services = Services(store_url)
    yield services
    await services.close()


def router_of(handler: Any, **options: Any) -> Router:
    router = Router("bookshelf")
    router.event(BookReturned, transactional=True, **options)(handler)
    return router


def returned() -> Envelope:
    return Envelope(
        id=new_id(),
        type="bookdesk.returned.v1",
        role="event",
        source="bookdesk",
        body=encode(BookReturned()),
    )


async def publish(services: Services, *events: Envelope) -> None:
    transport = MemoryTransport(services.broker)
    await transport.start(Ear(), timeout=5)
    for event in events:
        address = address_of("event", event.type)
        assert await transport.send(event, address, timeout=5) == Accepted()
    await transport.close()


async def test_copies_of_an_event_at_two_instances_at_once_have_one_effect(
    services: Services, database: Database
) -> None:
    handled = list[str]()

    async def shelve(event: BookReturned, context: Context, session: AsyncSession) -> None:
        # In READ COMMITTED, two messages that read before they write could overwrite each other.
        await session.execute(text("UPDATE stock SET copies = copies + 1"))
        handled.append(context.envelope.id)

    await services.serve(router_of(shelve))
    await services.serve(router_of(shelve))
    first, second = returned(), returned()
    await publish(services, *[first, second] * 4)
    await until(lambda: services.broker.depth(QUEUE) == 0, "all copies")
    await until(lambda: services.broker.unacked(QUEUE) == 0, "the ack of all copies")
    assert await copies_in(database) == 2
    assert sorted(handled) == sorted([first.id, second.id])
    assert services.broker.depth(f"{QUEUE}.dead") == 0


async def test_a_dead_letter_that_is_replayed_has_one_effect(
    services: Services, database: Database
) -> None:
    faults = [KeyError("first")]

    async def shelve(event: BookReturned, session: AsyncSession) -> None:
        await add_copy(session)
        if faults:
            raise faults.pop()

    bus = await services.serve(router_of(shelve, retry=RetryPolicy(attempts=1)))
    await publish(services, returned())
    await until(lambda: services.broker.depth(f"{QUEUE}.dead") == 1, "the dead letter")
    assert (await copies_in(database), await rows_in(database, "bus_inbox")) == (0, 0)
    await bus.replay(QUEUE, EVERYTHING)
    await until(lambda: copies_in(database), "the effect")
    assert await copies_in(database) == 1


async def test_a_handler_that_commits_becomes_a_dead_letter_that_says_so(
    services: Services, database: Database
) -> None:
    async def shelve(event: BookReturned, session: AsyncSession) -> None:
        await add_copy(session)
        await session.commit()

    bus = await services.serve(router_of(shelve))
    await publish(services, returned())
    await until(lambda: services.broker.depth(f"{QUEUE}.dead") == 1, "the dead letter")
    (dead,) = await bus.dead_letters(QUEUE)
    assert dead.record.code == "failed_precondition"
    assert "called commit() of its session" in str(dead.record.reason)
    assert await copies_in(database) == 0


async def test_a_job_succeeds_in_the_transaction_of_its_handler(
    services: Services, database: Database
) -> None:
    router = Router("bookshelf")

    @router.job(Restock, transactional=True)
    async def restock(job: Restock, context: Context, session: AsyncSession) -> Count:
        await context.progress(0.5, "counting")
        await add_copy(session)
        await context.progress(0.9, "counted")  # on SQLite, it cannot be stored before the commit
        return Count(copies=1)

    await services.serve(router)
    desk = await services.desk()
    handle = await desk.submit(Restock())
    assert await handle.result(timeout=30) == Count(copies=1)
    record = await SqlJobStore(database).find(JobKey("bookdesk", handle.id))
    assert record is not None
    assert (record.state, record.attempt, record.losses) == ("succeeded", 1, 0)
    assert record.result is not None
    assert await copies_in(database) == 1


async def test_a_job_that_fails_has_no_effect_and_its_retry_has_one(
    services: Services, database: Database
) -> None:
    router, faults = Router("bookshelf"), [KeyError("first")]

    @router.job(Restock, transactional=True, retry=RetryPolicy(attempts=2, delays=(0.01,)))
    async def restock(job: Restock, session: AsyncSession) -> Count:
        await add_copy(session)
        if faults:
            raise faults.pop()
        return Count(copies=1)

    await services.serve(router)
    desk = await services.desk()
    handle = await desk.submit(Restock())
    assert await handle.result(timeout=30) == Count(copies=1)
    assert await copies_in(database) == 1
