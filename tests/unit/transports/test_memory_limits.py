"""Tests of the limits of AMQP in the model broker, beyond those of the conformance suite."""

from typing import Any

import pytest

from bus.errors import InvalidArgument
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import Address
from bus.transports.memory.limits import check_limits
from bus.transports.rabbitmq.amqp.properties import write_properties
from bus.transports.wire_format import encode

ADDRESS = Address(exchange="", routing_key="inbox")


def envelope(headers: dict[str, Any]) -> Envelope:
    return Envelope(id="1", type="a.b.v1", role="event", source="a", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [{"n" * 256: "text"}, {"value": 1.5}, {"value": None}, {"value": ["text"]}, {"value": b"b"}],
    ids=["a long name", "a float", "None", "a list", "bytes"],
)
def test_a_header_that_the_fast_lane_cannot_encode_is_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - the transport turns it into InvalidArgument
        write_properties(envelope(headers))
    with pytest.raises(InvalidArgument, match=r"^an attribute, header or address of the message"):
        check_limits(encode(envelope(headers)), ADDRESS)


@pytest.mark.parametrize("size", [0, 100, 130_900, 131_200])
def test_properties_fit_into_a_frame_as_on_the_fast_lane(size: int) -> None:
    message = envelope({"text": "t" * size})
    if len(write_properties(message)) <= 128 * 1024 - 32:
        check_limits(encode(message), ADDRESS)
    else:
        with pytest.raises(InvalidArgument, match="must fit into a frame"):
            check_limits(encode(message), ADDRESS)
