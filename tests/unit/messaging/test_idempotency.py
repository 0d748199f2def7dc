"""Tests of `Context.idempotency_key`, the key for the writes of a handler."""

import hashlib
import re
from typing import Any
from uuid import UUID, uuid5

import pytest

from bus.messaging.context import Context
from bus.messaging.fault_record import PARKED, REPLAYS
from bus.runtime.router import Router
from tests.unit.fakes import NoSender, envelope
from tests.unit.ledger import BooksClosed

QUEUE = "ledger.jobs.close.v1"


def key(**attributes: Any) -> str:
    message = envelope(**{"id": "m-1", "source": "office", "queue": QUEUE, **attributes})
    return Context(envelope=message, bus=NoSender()).idempotency_key


def test_an_idempotency_key_is_the_digest_of_three_netstrings() -> None:
    """Keep the documented format: users have keys in their databases."""
    hashed = b"20:ledger.jobs.close.v*,6:office,3:m-1,"
    assert key() == hashlib.sha256(hashed).hexdigest()
    assert key() == "a287e0b333b4ce2dccd006249565b84a130e0aa2165c029c4f998e8d75caac78"


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": 4},
        {"headers": {REPLAYS: 2, PARKED: 1}},
        {"deadline": 1, "expires": 2, "received": 3, "timestamp": 4},
        {"proof": "another", "authorization": "another", "expiry_override": "another"},
    ],
    ids=["retry", "replay", "redelivery", "signed again"],
)
def test_an_idempotency_key_is_the_same_for_each_run_of_a_message(
    changes: dict[str, Any],
) -> None:
    assert key(**changes) == key()


def test_another_sender_with_the_same_message_id_has_another_idempotency_key() -> None:
    assert key(source="mail") != key(source="office")


def test_no_characters_can_move_between_the_parts_of_an_idempotency_key() -> None:
    pairs = [("a", "b.c"), ("a.b", "c"), ("a,1:b", "c"), ("a", ",1:b,c"), ("", "a"), ("a", "")]
    assert len({key(source=source, id=id_) for source, id_ in pairs}) == len(pairs)


@pytest.mark.parametrize("id_", ["", "é" * 255, "\x00'\n", "\ud800", "X" * 10_000])
def test_an_idempotency_key_has_64_hexadecimal_digits_for_every_message_id(id_: str) -> None:
    assert re.fullmatch("[0-9a-f]{64}", key(id=id_))


def test_ids_that_differ_only_in_case_have_different_idempotency_keys() -> None:
    assert key(id="a") != key(id="A")
    assert key(id="a").lower() != key(id="A").lower()


def test_two_subscriptions_of_one_event_have_two_idempotency_keys() -> None:
    router = Router("mail")

    @router.event(BooksClosed, subscription="index")
    async def index(event: BooksClosed) -> None: ...

    @router.event(BooksClosed, subscription="notify")
    async def notify(event: BooksClosed) -> None: ...

    assert len({key(queue=queue) for queue in router.endpoints}) == 2


def test_versions_of_one_event_have_one_idempotency_key() -> None:
    first = key(queue="mail.events.ledger.closed.v1.index")
    assert first == key(queue="mail.events.ledger.closed.v12.index")
    assert first != key(queue="mail.events.ledger.closed.v1")


def test_an_event_and_a_subscription_whose_names_look_alike_have_different_keys() -> None:
    queues = [
        "mail.events.ledger.closed.v1.v2",  # the subscription is `v2`
        "mail.events.ledger.closed.v2",
        "mail.events.ledger.closed.v.v1",
        "mail.events.ledger.closed.x.v1",
        "mail.events.ledger.closed.v1.x",
        "mail.events.ledger.v1.closed.v1",
    ]
    assert len({key(queue=queue) for queue in queues}) == len(queues)


def test_a_uuid_derives_from_an_idempotency_key() -> None:
    namespace = UUID("6f2a1d0c-4f0e-5d0a-9d5e-7d1f6d1f0c55")
    assert uuid5(namespace, key()) == uuid5(namespace, key(attempt=2)) != uuid5(namespace, "m-1")
