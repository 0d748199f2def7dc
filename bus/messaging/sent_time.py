"""The time at which a message was sent, to the millisecond."""

from typing import Final

from bus.messaging.envelope import Envelope

__all__ = ["SENT_AT", "sent_time"]

SENT_AT: Final = "sent-at"
"""Header of events and jobs: the time of the send, in milliseconds since the epoch.

It is not an attribute, because only measurements use it. AMQP's property `timestamp` has only whole
seconds. All attempts and replays of a message keep the header.
"""
MAX_EXPIRATION_MS: Final = 2**32 - 1
"""The longest expiration that a client sets. It does not tell how long the request may wait."""


def sent_time(envelope: Envelope) -> int | None:
    """Return when a message was sent, in milliseconds since the epoch. None if it is unknown.

    A request has its deadline, and the time that remained until the deadline when it was sent.
    Events and jobs of an earlier version of the bus have no time.
    """
    if envelope.role == "request":
        deadline, remained = envelope.deadline, envelope.expiration
        if deadline is None or remained is None or remained >= MAX_EXPIRATION_MS:
            return None
        return deadline - remained
    sent = envelope.headers.get(SENT_AT)
    return sent if type(sent) is int and sent > 0 else None
