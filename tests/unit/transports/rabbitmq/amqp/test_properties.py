import struct
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from bus.messaging.envelope import Envelope, MessageRole
from bus.messaging.fault_record import FailedBy, fault_headers
from bus.messaging.settlement import MoveToDeadLetters
from bus.messaging.topology.addresses import dead_letter_address
from bus.transports import wire_format as wire
from bus.transports.rabbitmq.amqp.pamqp_codec import from_properties, to_properties
from bus.transports.rabbitmq.amqp.properties import (
    message_id_of,
    read_envelope,
    read_headers,
    write_properties,
)
from bus.transports.rabbitmq.fastlane.confirm_channel import encode_publish
from bus.transports.rabbitmq.lenient_reader import sanitize_header_frame
from tests.unit.fakes import failed_far_away
from tests.unit.transports.rabbitmq.envelopes import envelopes
from tests.unit.transports.rabbitmq.fakes import connected

# An unreadable or missing id is replaced by a random one, which must not be compared.
MADE_UP = "made up"
names = st.sampled_from(
    [*wire.KNOWN_HEADERS, "x-death", "X-Mine", "dead-code", "mine", "ünïcode", ""]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
simple = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(width=32, allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["x" * 1024, "x" * 1025, "ü" * 1024, "x" * 40_000, ""])
    | st.datetimes(
        datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis requires naive limits
        datetime(2100, 1, 1),  # noqa: DTZ001 - as above
        timezones=st.just(UTC),
    )
    | st.decimals(-1000, 1000, places=3)
    | st.binary(max_size=10).map(bytearray)
    | st.just(Decimal(1))
)
values = simple | st.lists(simple, max_size=3) | st.dictionaries(names, simple, max_size=3)
short = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
maybe = st.none() | short
foreign = st.builds(
    Basic.Properties,
    content_type=st.sampled_from(
        ["application/json", "application/json", "text/plain", "application/jsonp", None, ""]
    ),
    content_encoding=st.sampled_from([None, None, None, "gzip"]),
    headers=st.none() | st.dictionaries(names, values, max_size=6),
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.sampled_from([None, None, 0, 9]),
    correlation_id=maybe,
    reply_to=maybe,
    expiration=maybe | st.integers(0, 10**17).map(str),
    message_id=maybe,
    timestamp=st.none()
    | st.datetimes(
        datetime(1970, 1, 2),  # noqa: DTZ001 - as above
        datetime(2200, 1, 1),  # noqa: DTZ001 - as above
        timezones=st.just(UTC),
    ),
    message_type=maybe,
    user_id=st.sampled_from([None, None, "guest"]),
    app_id=maybe,
)


def by_pamqp(properties: bytes, body: bytes) -> wire.AmqpMessage:
    header = ContentHeader()
    try:
        header.unmarshal(struct.pack(">HHQ", 60, 0, len(body)) + properties)
    except Exception:  # noqa: BLE001 - pamqp raises errors of any type
        return wire.AmqpMessage(body=body, content_type=None)
    return from_properties(header.properties, body)


def the_long_way(properties: bytes) -> Envelope:
    read = by_pamqp(properties, b"{}")
    envelope = wire.decode(read, role="job", queue="q", received=7)
    return envelope if read.message_id else envelope.replace(id=MADE_UP)


def the_short_way(properties: bytes) -> Envelope:
    envelope = read_envelope(properties, b"{}", role="job", queue="q", received=7)
    return envelope if by_pamqp(properties, b"").message_id else envelope.replace(id=MADE_UP)


def same(properties: bytes) -> None:
    short, long = the_short_way(properties), the_long_way(properties)
    assert short == long
    assert [type(value) for value in dict(short.headers).values()] == [
        type(short.headers[name]) for name in short.headers
    ]
    assert {name: type(value) for name, value in short.headers.items()} == {
        name: type(value) for name, value in long.headers.items()
    }


thorough = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
users_headers = st.dictionaries(
    names.filter(bool), st.booleans() | st.integers(-(2**63), 2**63 - 1) | short, max_size=4
)


@thorough
@given(envelopes, st.none() | users_headers)
def test_what_is_written_is_what_the_long_way_writes(
    sent: Envelope, headers: dict[str, Any] | None
) -> None:
    envelope = sent if headers is None else sent.replace(headers=headers)
    written, long = write_properties(envelope), to_properties(wire.encode(envelope)).marshal()
    assert by_pamqp(written, b"{}") == by_pamqp(long, b"{}")


@thorough
@given(envelopes)
def test_what_is_written_is_read(sent: Envelope) -> None:
    read = read_envelope(write_properties(sent), sent.body, role=sent.role, queue=None, received=0)
    assert read == wire.decode(wire.encode(sent), role=sent.role, queue=None, received=0)


@pytest.mark.parametrize(("user", "times"), [("library", 2), ("guest", 1), (None, 1)])
def test_a_message_has_a_user_where_that_has_its_senders_name_and_a_copy_of_anothers_has_none(
    user: str | None, times: int
) -> None:
    sent = Envelope(id="1", type="t", role="event", source="library", body=b"{}")
    short, long = (
        write_properties(sent, user=user),
        to_properties(wire.encode(sent), user=user).marshal(),
    )
    assert short.count(b"\x07library") == long.count(b"\x07library") == times, "app_id, and user_id"
    same(short)


@pytest.mark.parametrize("role", ["request", "event", "job", "reply", "update"])
def test_a_name_of_ours_among_the_users_headers_is_no_second_field(role: MessageRole) -> None:
    envelope = Envelope(
        id="1",
        type="t",
        role=role,
        source="s",
        correlation_id="c",
        headers={"correlation-id": "d", "deadline": 7},
    )
    assert by_pamqp(write_properties(envelope), b"") == by_pamqp(
        to_properties(wire.encode(envelope)).marshal(), b""
    )
    assert write_properties(envelope).count(b"correlation-id") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x" * 256},
        {"type": "ü" * 128},
        {"headers": {"n" * 256: "x"}},
        {"headers": {"n": 2**63}},
        {"timestamp": -1},
        {"id": "\ud800"},
    ],
)
def test_what_amqp_cannot_say_is_an_error(change: dict[str, Any]) -> None:
    envelope = Envelope(id="1", type="t", role="event", source="s").replace(**change)
    with pytest.raises((IndexError, ValueError, struct.error)):
        write_properties(envelope)


@thorough
@given(foreign)
def test_whatever_anybody_sends_is_read_as_the_long_way_reads_it(
    properties: Basic.Properties,
) -> None:
    same(properties.marshal())


@thorough
@given(st.dictionaries(names, values, max_size=6), st.integers(0, 2**33))
def test_headers_of_every_type_around_ours_are_read_as_the_long_way_reads_them(
    headers: dict[str, Any], timestamp: int
) -> None:
    mine = Basic.Properties(
        content_type="application/json",
        headers=headers,
        message_id="m",
        message_type="t",
        app_id="a",
    )
    mine.timestamp = datetime.fromtimestamp(timestamp, UTC)
    same(mine.marshal())


OURS = write_properties(
    Envelope(
        id="m-1",
        type="ledger.add.v1",
        role="request",
        source="office",
        correlation_id="c-1",
        causation_id="c-0",
        in_reply_to="q-1",
        reply_to="replies",
        deadline=1_700_000_000_000,
        expires=1_700_000_000_000,
        expiration=5000,
        headers={"mine": "x", "yours": 1},
    )
)


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(OURS) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
@example([(0, 0xFF), (1, 0xFF)])
def test_changed_bytes_are_read_as_the_long_way_reads_them(changes: list[tuple[int, int]]) -> None:
    data = bytearray(OURS)
    for place, byte in changes:
        data[place] = byte
    same(bytes(data))


@pytest.mark.parametrize("length", range(len(OURS) + 1))
def test_bytes_that_end_early_are_read_as_the_long_way_reads_them(length: int) -> None:
    same(OURS[:length])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_read_as_the_long_way_reads_them(data: bytes) -> None:
    same(data)


@pytest.mark.parametrize("size", [1024, 1025, 8000, 9000, 32 * 1024, 40_000])
@pytest.mark.parametrize("name", ["mine", "tracestate", "x-death"])
def test_large_headers_are_read_as_the_long_way_reads_them(name: str, size: int) -> None:
    headers: dict[str, Any] = {name: "x" * size, "zz": "after"}
    same(
        Basic.Properties(
            content_type="application/json",
            headers=headers,
            message_id="m",
            message_type="t",
            app_id="a",
        ).marshal()
    )


WIDE = "\U0001f600"  # The character has four bytes.
FULL: dict[str, dict[str, Any]] = {
    "a long text": {"mine": WIDE * 32_500},
    "long tokens": dict.fromkeys(["authorization", "proof", "counter-proof"], WIDE * 9_216)
    | {"mine": WIDE * 4_950},
    "many small numbers": {
        "".join(name): 1
        for name, _ in zip(product(map(chr, range(1, 120)), repeat=2), range(10_900), strict=False)
    },
}


@pytest.mark.parametrize("what", FULL)
async def test_whatever_came_in_a_frame_can_be_dead_lettered_in_one(what: str) -> None:
    """A message that cannot be dead-lettered would be requeued forever."""
    lane, _ = connected()
    came = Basic.Properties(
        content_type="application/json",
        headers=FULL[what],
        message_id="m",
        message_type="t.v1",
        app_id="a",
    ).marshal()
    assert len(came) < lane.frame_max - 32
    envelope = read_envelope(came, b"{}", role="job", queue="q", received=7)
    headers = fault_headers(
        envelope,
        MoveToDeadLetters(code="internal", reason=WIDE * 2_000),
        failed_far_away("E" * 300),
        queue="q" * 200,
        now=2**40,
        worker=FailedBy(service="ledger"),
    )
    assert encode_publish(
        lane, 1, envelope.replace(headers=headers), dead_letter_address("q" * 200)
    )


def crowd(value: Any) -> bytes:
    return Basic.Properties(
        content_type="application/json", headers=value, message_id="m", message_type="t", app_id="a"
    ).marshal()


CROWDS = {
    "an array": crowd({"mine": [None] * 100_000}),
    "an array of the broker's": crowd({"x-death": [None] * 100_000}),
    "a table in a table": crowd({"mine": {"a": {str(number): None for number in range(15_000)}}}),
    "headers": crowd({str(number): None for number in range(15_000)}),
    "a header again and again": crowd({"": None}).replace(
        b"\0\0\0\2\0V", (120_000).to_bytes(4, "big") + b"\0V" * 60_000
    ),
}


@pytest.mark.parametrize("what", CROWDS)
def test_headers_of_many_thousand_values_are_not_read(what: str) -> None:
    """For each value pamqp copies the rest, which would block the event loop for half a second."""
    properties = CROWDS[what]
    assert 60_000 < len(properties) < 131_072
    assert "no message_id" in (
        read_envelope(properties, b"{}", role="job", queue="q", received=7).fault or ""
    )
    assert read_headers(properties) == {}
    rest = struct.pack(">HHQ", 60, 0, 2) + properties + b"\xce"
    assert sanitize_header_frame(b"\x02\0\1" + (len(rest) - 1).to_bytes(4, "big"), rest).count(
        b"\0"
    ) > len(properties)


def test_headers_of_many_bytes_in_few_values_are_read() -> None:
    deaths = [{"queue": "q" * 200, "reason": "rejected", "count": number} for number in range(10)]
    properties = crowd(
        {
            "mine": "x" * 20_000,
            "bytes": bytearray(30_000),
            "list": ["x" * 30_000, {"a": "y" * 9_000}],
            "x-death": deaths,
        }
    )
    assert read_headers(properties)["x-death"] == deaths
    same(properties)


@pytest.mark.parametrize("digits", ["", "5000", "-1", "5 ", "\uff19", "9" * 17, "1e3"])
def test_an_expiration_is_read_as_the_long_way_reads_it(digits: str) -> None:
    same(
        Basic.Properties(
            content_type="application/json",
            expiration=digits,
            message_id="m",
            message_type="t",
            app_id="a",
        ).marshal()
    )


@pytest.mark.parametrize(
    "empty", ["correlation_id", "reply_to", "message_id", "message_type", "app_id", "expiration"]
)
def test_an_empty_property_is_read_as_the_long_way_reads_it(empty: str) -> None:
    given: dict[str, Any] = {
        "content_type": "application/json",
        "message_id": "m",
        "message_type": "t",
        "app_id": "a",
    }
    one_letter = Basic.Properties(**given | {empty: "Z"}).marshal()
    assert one_letter.count(b"\x01Z") == 1
    same(one_letter.replace(b"\x01Z", b"\x00"))  # pamqp omits an empty property.


def test_the_id_of_what_came_back_is_known_and_empty_where_it_has_none() -> None:
    assert message_id_of(OURS) == "m-1"
    assert message_id_of(Basic.Properties(message_id="m-2", priority=3).marshal()) == "m-2"
    assert message_id_of(Basic.Properties(app_id="a").marshal()) == ""
    assert message_id_of(b"\xff") == ""
