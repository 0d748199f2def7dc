"""Tests of the port: a message that violates wire format 1 is delivered with its fault.

The fault is needed to dead-letter the message.
"""

from dataclasses import replace
from typing import Any

import pytest

from bus.transports.wire_format import AmqpMessage
from tests.conformance.ports import quorum, to
from tests.conformance.world import World

GOOD = AmqpMessage(
    body=b"{}", message_id="1", type="desk.note.v1", app_id="desk", timestamp=1_700_000_000
)
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"message_id": None}, "no message_id"),
    "no type": ({"type": None}, "no type"),
    "no source": ({"app_id": None}, "no app_id"),
    "another content type": ({"content_type": "text/plain"}, "content_type"),
    "no content type": ({"content_type": None}, "content_type"),
    "a deadline that is text": ({"headers": {"deadline": "soon"}}, "deadline"),
    "a deadline that is true": ({"headers": {"deadline": True}}, "deadline"),
    "an attempt below one": ({"headers": {"attempt": 0}}, "attempt"),
    "an attempt that is a list": ({"headers": {"attempt": [1, 2]}}, "attempt"),
    "an expiry that is a table": ({"headers": {"expires": {"at": 1}}}, "expires"),
    "an expiry beyond JavaScript": ({"headers": {"expires": 2**60}}, "expires"),
    "a correlation id that is a number": ({"headers": {"correlation-id": 7}}, "correlation-id"),
    "an error that is a float": ({"headers": {"error": 1.5}}, "error"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_malformed_message_arrives_with_its_fault(world: World, fault: str) -> None:
    changes, expected = FAULTS[fault]
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    await world.put(replace(GOOD, **changes), to("inbox"))
    delivery = await inbox.next()
    assert expected in (delivery.envelope.fault or "")
    assert delivery.envelope.id
    assert delivery.envelope.body == b"{}"
    assert await delivery.ack()


async def test_a_message_with_headers_that_nobody_knows_has_no_fault(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    deaths = [{"queue": "q", "reason": "expired", "count": 1}]
    headers = {
        "mine": "kept",
        "number": 7,
        "list": [1],
        "table": {"a": 1},
        "x-death": deaths,
        "none": None,
    }
    await world.put(replace(GOOD, headers=headers), to("inbox"))
    envelope = (await inbox.next()).envelope
    assert envelope.fault is None
    assert envelope.headers == {"mine": "kept", "number": 7}


async def test_a_malformed_trace_is_ignored_and_the_message_is_not_refused(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    for value in (bytearray(b"\xff\xfe"), 7, "x" * 1025):
        headers = {"traceparent": value, "tracestate": value}
        await world.put(replace(GOOD, headers=headers), to("inbox"))
        envelope = (await inbox.next()).envelope
        assert (envelope.fault, envelope.traceparent, envelope.tracestate) == (None, None, None)


async def test_the_consumer_lives_after_a_hundred_malformed_messages(world: World) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox")
    inbox = await desk.consume(queue, topology)
    for number in range(100):
        await world.put(AmqpMessage(body=bytes([number]), content_type=None), to("inbox"))
    await inbox.holds(100)
    assert all(delivery.envelope.fault for delivery in inbox.deliveries)
    assert inbox.consumption.ready
