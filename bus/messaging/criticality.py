"""The criticality of a message: that of its contract, or a lower one.

The header can only lower the criticality of the contract. So a sender cannot give its requests
priority, and no check of the sender is necessary. Messages that a handler sends inherit the
criticality of the message that it handles, as they inherit the correlation id.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from bus.contracts.criticality import CRITICALITIES, Criticality
from bus.errors import InvalidArgument
from bus.messaging.context import current
from bus.messaging.envelope import NO_HEADERS, Envelope

__all__ = [
    "CRITICALITY",
    "criticality_header",
    "criticality_of",
    "lowered",
    "lowered_criticality",
]

CRITICALITY: Final = "criticality"
"""Header of requests, events and jobs with a lower criticality than that of their contract.

It is not an attribute, because only the inbound stages and the client use it. All attempts and
replays of a message keep the header.
"""
RANKS: Final[Mapping[object, int]] = {name: rank for rank, name in enumerate(CRITICALITIES)}
"""Position of each criticality. The most important one has the position 0."""

lowered: ContextVar[Criticality | None] = ContextVar("bus.criticality", default=None)
"""Limit that `lowered_criticality` has set. None sets no limit."""


def criticality_of(envelope: Envelope, own: Criticality) -> Criticality:
    """Return the criticality of a received message. An unknown value of the header is ignored.

    Args:
        envelope: The message.
        own: Criticality of its contract.
    """
    if not envelope.headers:
        return own
    stated = envelope.headers.get(CRITICALITY)
    if stated is None:
        return own
    rank = RANKS.get(stated, 0)
    return CRITICALITIES[rank] if rank > RANKS[own] else own


def criticality_header(own: Criticality) -> Mapping[str, str | int]:
    """Return the header of a message that is sent now.

    The result is empty unless the handled message, or `lowered_criticality`, lowers `own`.

    Args:
        own: Criticality of the contract of the message.
    """
    context, limit = current.get(), lowered.get()
    if context is None and limit is None:
        return NO_HEADERS
    rank = least = RANKS[own]
    if context is not None and context.criticality is not None:
        rank = max(rank, RANKS[context.criticality])
    if limit is not None:
        rank = max(rank, RANKS[limit])
    return NO_HEADERS if rank == least else {CRITICALITY: CRITICALITIES[rank]}


@contextmanager
def lowered_criticality(criticality: Criticality) -> Iterator[None]:
    """Lower the criticality of messages that are sent inside the block.

    An overloaded service refuses requests with a low criticality first. Use the block for work
    that is less important than the contract states, for example to fill a cache. No block can raise
    the criticality, also not a block inside another block.

    >>> with lowered_criticality("sheddable"):
    ...     await bus.request(GetTranscript(transcript_id=7))

    Args:
        criticality: The highest criticality of the messages.

    Raises:
        InvalidArgument: `criticality` is not one of the four criticalities.
    """
    if criticality not in CRITICALITIES:
        names = ", ".join(map(repr, CRITICALITIES))
        raise InvalidArgument(f"the criticality must be one of {names}. Write one of these names.")
    outer = lowered.get()
    is_lower = outer is None or RANKS[criticality] > RANKS[outer]
    token = lowered.set(criticality if is_lower else outer)
    try:
        yield
    finally:
        lowered.reset(token)
