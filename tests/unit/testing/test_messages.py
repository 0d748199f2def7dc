"""Tests of the assertions about sent messages and dead letters."""

import asyncio
import json
from typing import Any
from unittest.mock import ANY

import pytest

from bus import Bus, Event, Job, RetryPolicy, Router, Unavailable, contract
from bus.errors import BusError, ConfigurationError, ContractError, NotFound
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import Address
from bus.security.jwe import new_encryption_key
from bus.testing import FoundMessages, MemoryBuses
from bus.transports.wire_format import encode
from tests.polling import until
from tests.unit.testing.archive import Find, Place, Store, Stored, archive, catalogue


@contract("vault.keep", version=1, encrypted=True)
class Keep(Job[Place]):
    title: str


@contract("archive.moved", version=1)
class Moved(Event):
    places: list[Place]
    first: Place | None = None


@pytest.fixture
async def reader(buses: MemoryBuses) -> Bus:
    await buses.serve(await buses.bus("archive"), archive())
    return await buses.bus("reader")


async def test_the_events_of_a_handler_are_found_with_their_envelopes(
    buses: MemoryBuses, reader: Bus
) -> None:
    job = await reader.submit(Store(title="Emma"))
    await job.result()
    assert buses.published(Stored).messages == [Stored(title="Emma")]
    sent = buses.published(Stored).one(title="Emma")
    assert sent.envelope.causation_id == job.id
    assert sent.envelope.source == "archive"
    assert buses.submitted(Store).one().envelope.id == job.id


async def test_a_request_without_a_reply_is_found(buses: MemoryBuses) -> None:
    with pytest.raises(BusError):
        await (await buses.bus("reader")).request(Find(title="Emma"))
    assert buses.requested(Find).messages == [Find(title="Emma")]


async def test_an_event_that_the_broker_did_not_accept_is_not_published(
    buses: MemoryBuses, skip_waits: None
) -> None:
    archive = await buses.bus("archive")
    buses.broker.stop()
    with pytest.raises(Unavailable):
        await archive.publish(Stored(title="Emma"))
    buses.published(Stored).none()


async def test_a_message_that_was_retried_is_found_once(
    buses: MemoryBuses, skip_waits: None
) -> None:
    archive = await buses.bus("archive")
    buses.broker.swallow_confirms(1)
    publishing = asyncio.create_task(archive.publish(Stored(title="Emma"), timeout=60))
    await until(lambda: not buses.broker._confirms_to_swallow, "the first attempt")
    buses.broker.drop_all()
    await publishing
    assert len(buses.published(Stored)) == 1


async def test_a_failed_assertion_shows_the_nearest_message_and_the_fields_that_differ(
    buses: MemoryBuses,
) -> None:
    archive = await buses.bus("archive")
    for title, shelf in (("Persuasion", "A1"), ("Emma", "B2")):
        await archive.publish(Stored(title=title, place=Place(shelf=shelf)))
    with pytest.raises(AssertionError) as raised:
        buses.published(Stored).one(Stored(title="Emma", place=Place(shelf="B1")))
    assert str(raised.value) == (
        "no event archive.stored.v1 equal to Stored(title='Emma', place=Place(shelf='B1')) was "
        "published. The nearest message:\n"
        "  Stored(title='Emma', place=Place(shelf='B2'))\n"
        "    place.shelf: 'B2', expected 'B1'\n"
        "All others:\n"
        "  Stored(title='Persuasion', place=Place(shelf='A1'))"
    )


async def test_a_failed_assertion_says_if_nothing_was_sent(buses: MemoryBuses) -> None:
    with pytest.raises(AssertionError, match=r"^no event archive.stored.v1 was published.$"):
        buses.published(Stored).one(title="Emma")


async def test_a_failed_assertion_names_the_handlers_that_failed(
    buses: MemoryBuses, reader: Bus
) -> None:
    await reader.submit(Store(title="torn"))
    await buses.settled()
    with pytest.raises(AssertionError) as raised:
        buses.published(Stored).one(title="torn")
    assert str(raised.value).startswith(
        "no event archive.stored.v1 was published.\nHandlers that failed in this test:\n"
        "  archive.store.v1: LookupError: torn at "
    )


async def test_one_of_two_equal_messages_is_ambiguous(buses: MemoryBuses) -> None:
    archive = await buses.bus("archive")
    for _ in range(2):
        await archive.publish(Stored(title="Emma"))
    with pytest.raises(AssertionError, match=r"2 messages match, not one: .* Give more fields"):
        buses.published(Stored).one(title="Emma")


async def test_a_message_of_another_class_does_not_match_in_a_queue_of_several_classes(
    buses: MemoryBuses,
) -> None:
    await buses.serve(await buses.bus("archive"), archive())
    unroutable = "archive.unroutable.dead"
    wire = encode(
        Envelope(
            id="1",
            type="archive.store.v1",
            role="job",
            source="reader",
            body=b'{"title": "Emma"}',
        )
    )
    buses.broker.publish(wire, Address(exchange="", routing_key=unroutable))
    found = buses.dead(unroutable)
    found.one(Store(title="Emma"))
    found.none(Find(title="Emma"))
    with pytest.raises(AssertionError, match="its class is Store, expected Find"):
        found.one(Find(title="Emma"))


async def test_a_misspelt_field_is_an_error_with_a_suggestion(buses: MemoryBuses) -> None:
    archive = await buses.bus("archive")
    await archive.publish(Stored(title="Emma"))
    with pytest.raises(TypeError, match=r"Stored has no field 'titel'; did you mean 'title'?"):
        buses.published(Stored).none(titel="Emma")


@pytest.mark.parametrize("found", ["published", "dead", "queue", "subscription"])
@pytest.mark.parametrize("method", ["one", "none"])
async def test_a_misspelt_field_is_an_error_although_no_message_exists(
    buses: MemoryBuses, found: str, method: str
) -> None:
    await buses.serve(await buses.bus("archive"), archive())
    await buses.serve(await buses.bus("catalogue"), catalogue())
    messages: dict[str, FoundMessages[Any, Any]] = {
        "published": buses.published(Stored),
        "dead": buses.dead(Stored),
        "queue": buses.dead("archive.jobs.store.v1"),
        "subscription": buses.dead("catalogue.events.archive.stored.v1.shelves"),
    }
    with pytest.raises(TypeError, match=r"has no field 'titel'; did you mean 'title'\?"):
        getattr(messages[found], method)(titel="Emma")


@pytest.mark.parametrize(
    "fields",
    [
        {"title": 7},
        {"title": None},
        {"place": {"shelf": "B1"}},
        {"place": Find(title="B1")},
        {"place": "B1"},
        {"title": ["Emma"]},
        {"title": {"a": 1}},
    ],
)
async def test_a_value_that_the_field_can_never_have_is_an_error(
    buses: MemoryBuses, fields: dict[str, object]
) -> None:
    with pytest.raises(TypeError, match=r"has the type .*, so it is never equal to this"):
        buses.published(Stored).none(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"places": [{"shelff": "B1"}]},
        {"places": [{"shelf": "B1"}]},
        {"places": [5]},
        {"places": (Place(shelf="B1"),)},
        {"first": {"shelff": "B1"}},
    ],
)
async def test_a_part_of_a_value_that_the_field_can_never_have_is_an_error(
    buses: MemoryBuses, fields: dict[str, object]
) -> None:
    await (await buses.bus("archive")).publish(Moved(places=[Place(shelf="B1")]))
    with pytest.raises(TypeError, match=r"has the type .*, so it is never equal to this"):
        buses.published(Moved).none(**fields)
    buses.published(Moved).one(places=[Place(shelf="B1")], first=None)
    buses.published(Moved).one(places=[ANY])


async def test_two_values_for_one_field_are_an_error(buses: MemoryBuses) -> None:
    expected = Stored(title="Emma")
    with pytest.raises(TypeError, match="'title' has one value in the expected message"):
        buses.published(Stored).none(expected, title="Persuasion")


async def test_an_object_with_its_own_equality_is_accepted_as_a_value(buses: MemoryBuses) -> None:
    await (await buses.bus("archive")).publish(Stored(title="Emma"))
    buses.published(Stored).one(title=ANY, place=ANY)
    buses.published(Stored).none(title="", place=Place(shelf="Z9"))


@pytest.mark.parametrize("wrong", [Find(title="Emma"), Stored, {"title": "Emma"}])
async def test_an_expected_message_of_another_class_is_an_error(
    buses: MemoryBuses, wrong: object
) -> None:
    with pytest.raises(TypeError, match=r"must be an object of the class Stored, not .*Pass Stor"):
        buses.published(Stored).none(wrong)  # type: ignore[arg-type]  # the mistake under test


async def test_a_contract_of_another_kind_is_an_error(buses: MemoryBuses) -> None:
    with pytest.raises(TypeError, match=r"archive.store.v1 is a contract of kind job"):
        buses.published(Store)  # type: ignore[type-var]  # the mistake under test


async def test_a_message_in_place_of_its_class_is_an_error(buses: MemoryBuses) -> None:
    finders: list[Any] = [buses.published, buses.dead]
    for find in finders:
        with pytest.raises(ContractError, match=r"Stored is not a class. Pass the class Stored"):
            find(Stored(title="Emma"))
    with pytest.raises(ContractError, match="type str is not a class of messages"):
        buses.published("archive.stored.v1")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ContractError, match=r"Router is not a class of messages\. Derive it"):
        buses.published(Router)  # type: ignore[type-var]  # the mistake under test


async def test_a_sensitive_value_is_not_shown_by_a_failed_assertion(
    buses: MemoryBuses, reader: Bus
) -> None:
    await (await reader.submit(Store(title="Emma", owner="Ada"))).result()
    with pytest.raises(AssertionError) as raised:
        buses.submitted(Store).one(Store(title="Emma", owner="Bob"))
    assert "owner: differs; the values are sensitive" in str(raised.value)
    assert "Ada" not in str(raised.value)
    assert "Bob" not in str(raised.value)


async def test_dead_letters_are_found_by_contract_and_by_queue_with_their_reason(
    buses: MemoryBuses, reader: Bus, skip_waits: None
) -> None:
    job = await reader.submit(Store(title="torn"))
    with pytest.raises(BusError):
        await job.result()
    dead = buses.dead(Store).one(title="torn")
    assert dead.record.code == "internal"
    assert dead.record.attempts == 2
    assert isinstance(dead.cause, LookupError)
    queue = "archive.jobs.store.v1"
    assert [each.envelope.id for each in buses.dead(queue)] == [job.id]
    assert [each.envelope.id for each in buses.dead(f"{queue}.dead")] == [job.id]
    assert buses.broker.depth(f"{queue}.dead") == 1


async def test_an_unexpected_dead_letter_shows_the_exception_of_the_handler(
    buses: MemoryBuses, reader: Bus, skip_waits: None
) -> None:
    job = await reader.submit(Store(title="torn"))
    with pytest.raises(BusError):
        await job.result()
    with pytest.raises(AssertionError) as raised:
        buses.dead(Store).none()
    assert isinstance(raised.value.__cause__, LookupError)
    assert str(raised.value).startswith(
        "expected no dead letter of archive.store.v1, but 1 was found:\n"
    )
    assert "Store(title='torn', owner=…), internal after attempt 2: LookupError: torn at " in str(
        raised.value
    )


async def test_a_payload_that_cannot_be_decoded_is_a_dead_letter_without_a_message(
    buses: MemoryBuses, reader: Bus
) -> None:
    wire = encode(
        Envelope(id="1", type="archive.store.v1", role="job", source="reader", body=b"{}")
    )
    buses.broker.publish(wire, Address(exchange="", routing_key="archive.jobs.store.v1"))
    await buses.settled()
    assert buses.dead(Store)[0].message is None
    with pytest.raises(AssertionError, match="the payload does not match the contract"):
        buses.dead(Store).one(title="Emma")


async def test_an_encrypted_dead_letter_is_shown_to_a_test_whose_bus_has_the_keys(
    buses: MemoryBuses,
) -> None:
    keys = json.dumps({"keys": [new_encryption_key("one")]})
    vault, router = await buses.bus("vault", encryption_keys=keys), Router("vault")

    @router.job(Keep, retry=RetryPolicy(attempts=1))
    async def keep(job: Keep) -> Place:
        raise LookupError

    await buses.serve(vault, router)
    await vault.submit(Keep(title="Emma"))
    await buses.settled()
    assert b"Emma" not in buses.broker.peek("vault.jobs.keep.v1.dead")[0].body
    assert buses.dead(Keep).messages == [Keep(title="Emma")]


async def test_an_unknown_queue_is_an_error_with_a_suggestion(
    buses: MemoryBuses, reader: Bus
) -> None:
    with pytest.raises(NotFound, match=r"did you mean 'archive.jobs.store.v1'"):
        buses.dead("archive.jobs.stor.v1")


async def test_found_messages_show_their_values(buses: MemoryBuses) -> None:
    await (await buses.bus("archive")).publish(Stored(title="Emma"))
    found = buses.published(Stored)
    assert repr(found) == (
        "<event archive.stored.v1, published: [Stored(title='Emma', place=Place(shelf='B1'))]>"
    )


async def test_a_keyword_that_is_not_a_setting_is_refused_with_the_name_that_is_meant(
    buses: MemoryBuses,
) -> None:
    with pytest.raises(ConfigurationError, match="`heartbaet` is not a setting; did you mean 'hea"):
        await buses.bus("ledger", heartbaet=5)
    with pytest.raises(ConfigurationError, match=r"`zzz` is not a setting\. Write a field of"):
        await buses.bus("ledger", zzz=1)
