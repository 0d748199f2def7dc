"""Properties of copies, compared with pamqp, which decodes the values that the copy keeps raw."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pamqp import header as pamqp_header
from pamqp.commands import Basic

from bus.transports.rabbitmq.amqp.raw_properties import CopyOptions, copy_properties

OUT, BACK, DEAD = (
    CopyOptions(hold=True),
    CopyOptions(hold=False),
    CopyOptions(hold=True, keep_deaths=True),
)
EVERY_TYPE: dict[str, Any] = {
    "text": "a",
    "bytes": bytearray(b"\xff\x00"),
    "flag": True,
    "octet": 1,
    "short": 300,
    "long": 70_000,
    "long long": 2**40,
    "double": 1.5,
    "decimal": Decimal("1.5"),
    "moment": datetime(2026, 1, 1, tzinfo=UTC),
    "array": [1, "b", [2]],
    "table": {"x-inner": {"y": 1}},
    "nothing": None,
}


def raw(**properties: Any) -> bytes:
    return pamqp_header.ContentHeader(0, 0, Basic.Properties(**properties)).marshal()[12:]


def decoded(data: bytes) -> Basic.Properties:
    header = pamqp_header.ContentHeader()
    header.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + data)
    return header.properties


def attributes(data: bytes) -> dict[str, Any]:
    return {name: value for name, value in dict(decoded(data)).items() if value not in (None, "")}


ALL: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "none",
    "headers": EVERY_TYPE,
    "delivery_mode": 2,
    "priority": 3,
    "correlation_id": "c",
    "reply_to": "r",
    "message_id": "m",
    "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
    "message_type": "ledger.close.v1",
    "app_id": "office",
}


@pytest.mark.parametrize("carriage", [OUT, BACK, DEAD])
@pytest.mark.parametrize(
    "properties", [ALL, {}, {"message_id": "m"}, {"headers": {}}, {"message_type": "t" * 255}]
)
def test_what_belongs_to_the_message_arrives_byte_for_byte(
    carriage: CopyOptions, properties: dict[str, Any]
) -> None:
    data = raw(**properties)
    assert copy_properties(data, carriage, redelivered=False) == data


def test_what_belongs_to_its_sender_and_to_the_broker_stays_behind() -> None:
    data = raw(
        **{
            **ALL,
            "user_id": "guest",
            "headers": {"x-death": [{"count": 1}], "X-First-Death-Queue": "q", "mine": 1},
        }
    )
    assert attributes(copy_properties(data, OUT, redelivered=False)) == attributes(
        raw(**{**ALL, "headers": {"mine": 1}})
    )


def test_of_dead_letters_what_says_why_goes_along() -> None:
    data = raw(
        headers={"x-death": [{"count": 1}], "x-first-death-queue": "q", "x-delivery-count": 3}
    )
    assert set(decoded(copy_properties(data, DEAD, redelivered=False)).headers or {}) == {
        "x-death",
        "x-first-death-queue",
    }


def test_a_message_that_may_be_there_twice_says_so() -> None:
    again = copy_properties(raw(message_id="m", headers={"mine": 1}), OUT, redelivered=True)
    assert decoded(again).headers == {"mine": 1, "redelivered": True}
    assert decoded(copy_properties(raw(), OUT, redelivered=True)).headers == {"redelivered": True}
    assert copy_properties(again, BACK, redelivered=True) == again


def test_nothing_expires_while_it_is_held_and_all_is_as_it_was_afterwards() -> None:
    data = raw(**{**ALL, "expiration": "60000"})
    held = copy_properties(data, OUT, redelivered=False)
    assert "expiration" not in attributes(held)
    assert copy_properties(held, BACK, redelivered=False) == data


@pytest.mark.parametrize("value", ["never", "-1", "99999999999", 7, bytearray(b"\xff" * 300)])
def test_an_expiration_that_a_sender_says_is_held_is_none(value: Any) -> None:
    """The broker closes the channel for an invalid expiration.

    Later messages would then never leave the migration queue.
    """
    held = copy_properties(
        raw(headers={"held-expiration": value, "mine": 1}), OUT, redelivered=False
    )
    assert attributes(copy_properties(held, BACK, redelivered=False)) == {"headers": {"mine": 1}}


def test_a_header_of_every_type_that_rabbitmq_knows_is_read() -> None:
    """pamqp never writes the type `u`, but the .NET client does, for a `ushort`."""
    data = raw(user_id="guest", headers={"a": 300}).replace(b"\x01as\x01\x2c", b"\x01au\x01\x2c")
    assert attributes(copy_properties(data, OUT, redelivered=False)) == {"headers": {"a": 300}}


@pytest.mark.parametrize(
    "value", ["soon", "-1", "", "315360000001", "9" * 300, 7, None, [1], bytearray(b"60000")]
)
def test_who_says_that_something_was_held_and_gives_no_time_keeps_his_header(value: Any) -> None:
    """The broker closes the channel for an invalid expiration, and for another user's id."""
    back = attributes(
        copy_properties(
            raw(user_id="guest", headers={"held-expiration": value}), BACK, redelivered=False
        )
    )
    assert back == {"headers": {"held-expiration": value}}


def test_what_cannot_be_read_goes_on_as_it_is() -> None:
    whole = raw(**{**ALL, "user_id": "guest"})
    for end in range(len(whole)):
        cut = whole[:end]
        assert copy_properties(cut, OUT, redelivered=True) == cut
    unknown = raw(headers={"a": 1}).replace(b"\x01ab", b"\x01a?")
    assert copy_properties(unknown, OUT, redelivered=True) == unknown
