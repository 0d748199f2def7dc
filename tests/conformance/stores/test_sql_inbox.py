"""Tests of the plain inbox on each database."""

import pytest

from bus.messaging.envelope import Envelope
from bus.messaging.ports.inbox import FactKey, HandledMessage, MessageKey
from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.claims import Claims
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.inbox import SqlInbox, digest_of
from tests.conformance.stores.transactional import KEY as FACT
from tests.conformance.stores.transactional import Clock, rows_in
from tests.databases import connected

KEY = MessageKey("shelf.jobs.scan.v1", "library", "m-1")
REPLY = Envelope(
    id="r-1", type="shelf.scan.v1.reply", role="update", source="shelf", body=b"\x00{}"
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox(database: Database, clock: Clock) -> SqlInbox:
    return SqlInbox(database, clock=clock)


async def test_a_handled_message_is_found_by_its_whole_key_with_its_reply(inbox: SqlInbox) -> None:
    await inbox.add(KEY, HandledMessage(reply=REPLY))
    found = await inbox.find(KEY)
    assert found is not None
    assert found.reply == REPLY
    for other in (KEY._replace(queue="x"), KEY._replace(source="x"), KEY._replace(id="x")):
        assert await inbox.find(other) is None


async def test_a_message_that_is_added_again_replaces_its_entry(
    inbox: SqlInbox, database: Database
) -> None:
    await inbox.add(KEY, HandledMessage(reply=REPLY))
    await inbox.add(KEY, HandledMessage())
    assert await inbox.find(KEY) == HandledMessage()
    assert await rows_in(database, "bus_inbox") == 1


async def test_another_process_finds_a_handled_message(
    inbox: SqlInbox, address: StoreAddress
) -> None:
    await inbox.add(KEY, HandledMessage())
    async with connected(address) as other:
        assert await SqlInbox(other).find(KEY) == HandledMessage()


async def test_an_id_with_any_characters_is_a_key(inbox: SqlInbox) -> None:
    for text in ("\ud800", "with\0nul", "é" * 1024, ""):
        await inbox.add(KEY._replace(id=text), HandledMessage())
        assert await inbox.find(KEY._replace(id=text)) == HandledMessage()
        assert await inbox.find(KEY._replace(id=f"{text}?")) is None


async def test_old_entries_are_removed_in_batches_and_new_ones_stay(
    inbox: SqlInbox, clock: Clock
) -> None:
    for number in range(5):
        await inbox.add(KEY._replace(id=str(number)), HandledMessage())
    clock.now += 100
    await inbox.add(KEY, HandledMessage())
    assert await inbox.prune(before=clock.now - 50, limit=3) == 3
    assert await inbox.prune(before=clock.now - 50, limit=3) == 2
    assert await inbox.prune(before=clock.now - 50, limit=3) == 0
    assert await inbox.find(KEY) == HandledMessage()


async def test_an_abandoned_claim_and_its_renewal_are_removed(
    inbox: SqlInbox, database: Database, clock: Clock
) -> None:
    claims = Claims(database, clock=clock)
    claim = await claims.claim(FACT, lease=30)
    assert claim is not None
    assert await claims.renew([claim], lease=30) == {claim}
    clock.now += 100  # its process has ended
    assert await inbox.prune(before=clock.now - 50, limit=100) == 1
    assert await rows_in(database, "bus_inbox_renewals") == 0


def test_no_key_of_a_fact_is_the_key_of_another_one() -> None:
    others: list[FactKey | MessageKey] = [
        FACT._replace(subscription="l", source="ibrary"),
        FACT._replace(subscriber="shelflibrary.returned", name=""),
        FACT._replace(id="m-12"),
        MessageKey("shelf", "library", "m-1"),
    ]
    assert digest_of(FACT) not in [digest_of(other) for other in others]
