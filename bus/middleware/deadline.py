"""Deadlines: every wait ends, and nobody works on what nobody waits for any more."""

import time
from collections.abc import Callable

from bus.errors import DeadlineExceeded
from bus.messaging.context import current
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.timers import SharedTimer, TimerExpired

__all__ = ["client_deadline", "server_deadline"]

Clock = Callable[[], float]


def client_deadline(*, clock: Clock = time.time) -> Middleware:
    """Narrow a request's deadline to that of what is being handled now, and refuse to send what is already late.

    It bounds all attempts together because everything below it, the retry policy and the transport, waits no
    longer than `envelope.deadline`. An event or job starts a life of its own and does not inherit a request's deadline.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            context = current.get()
            inherited = context.deadline if context and envelope.role == "request" else None
            if inherited is not None and (
                envelope.deadline is None or inherited < envelope.deadline
            ):
                envelope = envelope.replace(deadline=inherited)
            if envelope.deadline is not None and envelope.deadline <= clock() * 1000:
                raise DeadlineExceeded(
                    f"{envelope.type}: the deadline had passed before it was sent"
                )
            return await inner(envelope)

        return call

    return layer


def server_deadline(
    *, clock: Clock = time.time, leeway: float = 30, longest: float = 10
) -> Middleware:
    """Cancel handling at the deadline, and refuse what arrived after it.

    A request ends at the earlier of `deadline + leeway` and arrival + `expiration`: the first alone would let a skewed
    clock kill live work, the second alone would give a request that waited in the queue its whole time again.
    One that says neither, which a client in another language may send, ends after `longest`. Both are in seconds.
    """
    deadlines = SharedTimer()

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            ends = _end(envelope, int(leeway * 1000), int(longest * 1000))
            if ends is None:
                return await inner(envelope)
            left = ends / 1000 - clock()
            if left <= 0:
                raise DeadlineExceeded(f"{envelope.type}: arrived after its deadline")
            context = current.get()
            if context is not None:
                context.deadline = ends
            try:
                with deadlines.limit(left):
                    return await inner(envelope)
            except TimerExpired:
                raise DeadlineExceeded(f"{envelope.type}: not done within {left:.3g} s") from None

        return call

    return layer


def _end(envelope: Envelope, leeway: int, longest: int) -> int | None:
    """Milliseconds since the epoch."""
    if envelope.role != "request":
        return (
            envelope.deadline
        )  # set by the receiver from the handler's own timeout, on this machine's clock
    if envelope.received is None:
        return None if envelope.deadline is None else envelope.deadline + leeway
    if envelope.expiration is not None:
        expires = envelope.received + envelope.expiration
        return expires if envelope.deadline is None else min(expires, envelope.deadline + leeway)
    return envelope.received + longest if envelope.deadline is None else envelope.deadline + leeway
