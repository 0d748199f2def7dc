"""Hypothesis strategies for envelopes with any valid attributes."""

from hypothesis import strategies as st

from bus.messaging.envelope import Envelope
from bus.transports.wire_format import MAX_DEADLINE_MS

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
moment = st.integers(1, MAX_DEADLINE_MS - 1)
envelopes = st.builds(
    Envelope,
    id=text,
    type=text,
    role=st.sampled_from(["request", "event", "job", "reply", "update"]),
    source=text,
    body=st.binary(max_size=60),
    timestamp=st.integers(0, 2**32 - 1),
    correlation_id=text,
    causation_id=st.none() | text,
    in_reply_to=st.none() | text,
    reply_to=st.none() | text,
    traceparent=st.none() | text,
    tracestate=st.none() | text,
    deadline=st.none() | moment,
    expires=st.none() | moment,
    expiration=st.none() | moment,
    attempt=moment,
    error=st.none() | text,
    headers=st.dictionaries(
        text.filter(lambda name: name.startswith("mine")),
        text | st.integers(-(2**31), 2**31),
        max_size=3,
    ),
)
