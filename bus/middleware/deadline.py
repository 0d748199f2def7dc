"""Deadlines: every wait ends, and no service works on a request without a waiting caller."""

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
    """Limit a request's deadline to that of the message being handled, and refuse late messages.

    It limits all attempts together, because the inner layers, that is the retry policy and the
    transport, do not wait longer than `envelope.deadline`. Events and jobs do not inherit a
    deadline, because they are independent of the request that caused them.

    Args:
        clock: Function that returns the current time in seconds since the epoch.
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
                    f"{envelope.type}: the deadline passed before the message was sent. "
                    f"Raise the timeout."
                )
            return await inner(envelope)

        return call

    return layer


def server_deadline(
    *, clock: Clock = time.time, leeway: float = 30, longest: float = 10
) -> Middleware:
    """Cancel handling at the deadline, and refuse a message that arrives after it.

    A request ends at the earlier of `deadline` + `leeway` and arrival + `expiration`. With the
    first limit alone, a skewed clock would cancel live work. With the second alone, a request that
    waited in the queue would get its full time again. A client in another language may set neither.

    Args:
        clock: Function that returns the current time in seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.
        longest: Seconds for a request without `deadline` and `expiration`.
    """
    timer = SharedTimer()

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            ends = _end_time(envelope, int(leeway * 1000), int(longest * 1000))
            if ends is None:
                return await inner(envelope)
            left = ends / 1000 - clock()
            if left <= 0:
                raise DeadlineExceeded(
                    f"{envelope.type}: arrived after its deadline. Raise the timeout, or "
                    f"synchronize the clocks."
                )
            context = current.get()
            if context is not None:
                context.deadline = ends
            try:
                with timer.limit(left):
                    return await inner(envelope)
            except TimerExpired:
                raise DeadlineExceeded(
                    f"{envelope.type}: the handler did not end within {left:.3g} s. "
                    f"Raise the timeout."
                ) from None

        return call

    return layer


def _end_time(envelope: Envelope, leeway: int, longest: int) -> int | None:
    """Return the time when handling ends, in milliseconds since the epoch."""
    if envelope.role != "request":
        # The service activator set it from the handler's timeout, on the clock of this machine.
        return envelope.deadline
    if envelope.received is None:
        return None if envelope.deadline is None else envelope.deadline + leeway
    if envelope.expiration is not None:
        expires = envelope.received + envelope.expiration
        return expires if envelope.deadline is None else min(expires, envelope.deadline + leeway)
    return envelope.received + longest if envelope.deadline is None else envelope.deadline + leeway
