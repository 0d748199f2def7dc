from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from string import ascii_letters
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FailedBy, fault_headers
from bus.messaging.settlement import MoveToDeadLetters
from bus.transports.rabbitmq.amqp.pamqp_codec import from_message
from bus.transports.rabbitmq.amqp.properties import write_properties
from bus.transports.wire_format import (
    MAX_DEADLINE_MS,
    MAX_OTHER_HEADER_BYTES,
    MAX_TEXT_LENGTH,
    TOKEN_HEADERS,
    AmqpMessage,
    decode,
    encode,
)
from tests.unit.fakes import envelope, failed_far_away

GOOD = AmqpMessage(
    body=b"{}",
    message_id="m-1",
    type="ledger.add.v1",
    app_id="office",
    headers={"correlation-id": "c-1"},
)


def read(message: AmqpMessage) -> Envelope:
    return decode(message, role="job", queue="q", received=1)


def delivered(properties: Basic.Properties) -> DeliveredMessage:
    return DeliveredMessage(
        delivery=Basic.Deliver(),
        header=ContentHeader(properties=properties),
        body=b"{}",
        channel=None,  # type: ignore[arg-type]  # the decoder does not read it
    )


ANYTHING: list[Any] = [
    True,
    0,
    -1,
    2**53,
    2**63 - 1,
    0.5,
    Decimal("1.5"),
    "",
    "text",
    b"\xff",
    bytearray(b"x"),
    None,
    [1],
    {"a": 1},
]
ANYTHING += [datetime(2026, 1, 1, tzinfo=UTC), "ü" * 70_000]
KNOWN = [
    "correlation-id",
    "causation-id",
    "traceparent",
    "tracestate",
    "error",
    "deadline",
    "expires",
    "attempt",
]


@pytest.mark.parametrize("name", [*KNOWN, "mine"])
def test_a_header_of_any_type_is_taken_or_told(name: str) -> None:
    for value in ANYTHING:
        arrived = read(
            AmqpMessage(body=b"{}", message_id="m", type="t", app_id="a", headers={name: value})
        )
        if name in {"deadline", "expires", "attempt"}:
            right = type(value) is int and 0 < value < MAX_DEADLINE_MS
        else:
            is_ignored = name in {"mine", "traceparent", "tracestate"}
            right = is_ignored or (isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH)
        assert arrived.fault == (
            None if right or value is None else f"header {name} is malformed"
        ), repr(value)[:20]


@pytest.mark.parametrize(
    "name",
    [
        "content_type",
        "correlation_id",
        "reply_to",
        "expiration",
        "message_id",
        "timestamp",
        "message_type",
        "app_id",
        "delivery_mode",
    ],
)
def test_a_property_of_any_type_is_taken_or_told(name: str) -> None:
    needed = name in {"content_type", "message_id", "message_type", "app_id"}
    for value in ANYTHING:
        properties = Basic.Properties(
            content_type="application/json",
            message_id="m",
            message_type="t",
            app_id="a",
            headers={},
        )
        setattr(properties, name, value)
        arrived = read(from_message(delivered(properties)))
        legible = isinstance(value, str) and value != ""
        wrong = (needed and not (legible and name != "content_type")) or (
            name == "expiration" and legible
        )
        assert bool(arrived.fault) == wrong, repr(value)[:20]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"message_id": None}, "no message_id"),
        ({"type": ""}, "no type"),
        ({"app_id": None}, "no app_id"),
        ({"content_type": "text/plain"}, "content_type is not application/json"),
        ({"content_type": None}, "content_type is not application/json"),
        ({"expiration": "soon"}, "expiration is malformed"),
        ({"expiration": "-1"}, "expiration is malformed"),
        ({"expiration": "²"}, "expiration is malformed"),
        ({"expiration": "9" * 400}, "expiration is malformed"),
        ({"expiration": ""}, "expiration is malformed"),
        ({"message_id": None, "type": None}, "no message_id; no type"),
    ],
)
def test_what_is_missing_or_wrong_is_told(changes: dict[str, Any], fault: str) -> None:
    known = {"body": b"{}", "message_id": "m-1", "type": "ledger.add.v1", "app_id": "office"}
    arrived = read(AmqpMessage(**{**known, **changes}))
    assert arrived.fault == fault
    assert arrived.id


def test_the_brokers_headers_do_not_come_back() -> None:
    arrived = read(
        AmqpMessage(
            body=b"",
            headers={
                "x-death": "q",
                "X-Mine": "a",
                "mine": "kept",
                "list": [1],
                "dead-code": "internal",
            },
        )
    )
    assert arrived.headers == {"mine": "kept", "dead-code": "internal"}
    assert "x-death" not in encode(envelope(headers={"x-death": "q", "X-Any": 1})).headers


FRAME = 131_072 - 32
"""Maximum bytes of properties that RabbitMQ accepts, and so of those that it delivers."""
NAMES = ["".join(each) for each in product(ascii_letters, repeat=3)]
LARGE: dict[str, dict[str, Any]] = {
    "letters of four bytes": {"a": "\U0001f600" * (FRAME // 4 - 100)},
    "tokens and ids of four bytes a letter": {
        **dict.fromkeys(TOKEN_HEADERS, "\U0001f600" * 9216),
        **dict.fromkeys(("correlation-id", "tracestate"), "\U0001f600" * 1024),
        "a": "a" * 11_500,
    },
    "many that are empty, and tokens": dict.fromkeys(NAMES[:10_900], "")
    | dict.fromkeys(TOKEN_HEADERS, "a" * 9216),
    "many numbers of one byte each, and tokens": dict.fromkeys(NAMES[:8_000], 1)
    | dict.fromkeys(TOKEN_HEADERS, "a" * 9216),
}


@pytest.mark.parametrize("what", LARGE)
def test_a_dead_letter_fits_a_frame_whatever_was_sent(what: str) -> None:
    """Check the size of the copy: a message too large to copy would be requeued for ever.

    Any sender can send such a message.
    """
    assert len(Basic.Properties(headers=LARGE[what]).marshal()) <= FRAME, (
        "it could not have been sent"
    )
    arrived = read(AmqpMessage(body=b"", headers=LARGE[what]))
    decision = MoveToDeadLetters(code="unauthenticated", reason="\U0001f600" * 2000)
    headers = fault_headers(
        arrived,
        decision,
        failed_far_away("E" * 300),
        queue="q" * 200,
        now=2**40,
        worker=FailedBy(service="ledger"),
    )
    assert len(write_properties(arrived.replace(headers=headers))) <= FRAME


def test_other_headers_are_carried_as_far_as_a_frame_holds_them() -> None:
    arrived = read(
        AmqpMessage(body=b"", headers={"small": "kept", "large": "a" * MAX_OTHER_HEADER_BYTES})
    )
    assert arrived.headers == {"small": "kept"}


def test_what_proves_a_message_is_not_in_its_repr() -> None:
    sent = encode(
        envelope(
            authorization="Bearer hunter2",
            proof="hunter3",
            expiry_override="hunter4",
            body=b"hunter5",
        )
    )
    assert "hunter" not in repr(sent)


def test_a_good_message_has_no_fault() -> None:
    assert read(GOOD).fault is None
