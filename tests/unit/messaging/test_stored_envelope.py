"""The bytes in which a store keeps an envelope."""

import pytest

from bus.errors import Undecodable
from bus.messaging.call_limits import CallLimits
from bus.messaging.envelope import Envelope, from_stored_bytes, to_stored_bytes

ENVELOPE = Envelope(
    id="a1",
    type="library.scan.v1",
    role="job",
    source="reader",
    body=b"\xff\x00",
    proof="proof",
    received=1,
    headers={"dead-code": "internal", "replays": 2},
)


def test_a_stored_envelope_has_every_attribute_but_the_limits_of_the_sender() -> None:
    stored = to_stored_bytes(ENVELOPE.replace(limits=CallLimits(setting="x")))
    assert from_stored_bytes(stored) == ENVELOPE


def test_attributes_with_their_default_take_no_space() -> None:
    assert len(to_stored_bytes(Envelope(id="a", type="b", role="job", source="c"))) < 60


def test_bytes_that_are_not_an_envelope_are_refused() -> None:
    with pytest.raises(Undecodable, match="stored message cannot be read"):
        from_stored_bytes(b"\x80")
