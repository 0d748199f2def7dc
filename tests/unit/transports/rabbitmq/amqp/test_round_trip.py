from hypothesis import given, settings
from pamqp.commands import Basic

from bus.messaging.envelope import Envelope
from bus.transports.rabbitmq.amqp.pamqp_codec import from_message, to_properties
from bus.transports.wire_format import decode, encode
from tests.unit.transports.rabbitmq.envelopes import envelopes
from tests.unit.transports.test_wire_format import delivered


@settings(max_examples=50)
@given(envelopes)
def test_what_is_sent_arrives(sent: Envelope) -> None:
    wire = encode(sent)
    arrived = decode(wire, role=sent.role, queue="q", received=7)
    request, lasting = sent.role == "request", sent.role in {"event", "job"}
    assert arrived == sent.replace(
        queue="q",
        received=7,
        deadline=sent.deadline if request else None,
        attempt=sent.attempt if lasting else 1,
    )
    assert wire.delivery_mode == (2 if lasting else 1)


@settings(max_examples=50)
@given(envelopes)
def test_it_survives_amqps_own_properties(sent: Envelope) -> None:
    wire = encode(sent)
    properties = to_properties(wire)
    blank = Basic.Properties()
    blank.unmarshal(*_flags_and_values(properties))
    assert decode(from_message(delivered(blank)), role="job", queue=None, received=0).replace(
        body=b""
    ) == decode(wire, role="job", queue=None, received=0).replace(body=b"")


def _flags_and_values(properties: Basic.Properties) -> tuple[int, bytes]:
    raw = properties.marshal()
    return int.from_bytes(raw[:2], "big"), raw[2:]
