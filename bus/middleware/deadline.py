"""Deadlines: they limit how long a caller waits, and how long a service handles a message."""

import time
from collections.abc import Callable

from bus.errors import DeadlineExceeded
from bus.messaging.call_limits import HANDLER_ENDED, timeout_advice
from bus.messaging.context import current
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.timers import SharedTimer, TimerExpired, format_seconds

__all__ = ["client_deadline", "server_deadline"]

Clock = Callable[[], float]


def client_deadline(*, clock: Clock = time.time) -> Middleware:
    """Let requests inherit the handled message's deadline. Reject a message whose deadline passed.

    A request gets the earlier of its own deadline and the deadline of the message that is being
    handled. Events and jobs do not inherit a deadline, because they are independent of the request
    that caused them. The deadline limits all attempts together, because the resends and the
    transport (the inner layers) do not wait longer than `envelope.deadline`.

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
                # No setting of this process can extend an inherited deadline.
                limits = envelope.limits and envelope.limits.without_setting
                envelope = envelope.replace(deadline=inherited, limits=limits)
            if envelope.deadline is not None and envelope.deadline <= clock() * 1000:
                raise DeadlineExceeded(
                    f"{envelope.type}: the deadline passed before the message was sent. "
                    f"{timeout_advice(envelope.limits, 'Raise')}."
                )
            return await inner(envelope)

        return call

    return layer


def server_deadline(
    *, clock: Clock = time.time, leeway: float = 30, longest: float = 10
) -> Middleware:
    """Cancel the handler at the deadline, and reject a message that arrives after its deadline.

    A request must be handled before `deadline` + `leeway` and before arrival + `expiration`. If
    only `deadline` limited the time, a wrong clock could cancel a handler too early. If only
    `expiration` limited the time, a request that waited in the queue would get its full time again.
    A request that has neither `deadline` nor `expiration` gets `longest` seconds. Only a client in
    another language can send it.

    Args:
        clock: Function that returns the current time in seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.
        longest: Maximum seconds for a request without `deadline` and `expiration`.
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
                    f"synchronize the clocks.",
                    executed="no",
                )
            context = current.get()
            if context is not None:
                context.deadline = ends
            try:
                with timer.limit(left):
                    return await inner(envelope)
            except TimerExpired as expired:
                raise DeadlineExceeded(
                    f"{envelope.type}: {HANDLER_ENDED} {format_seconds(left)}"
                    f"{_limit_advice(envelope)}"
                ) from expired.__context__  # the cancellation, which has the handler's location

        return call

    return layer


def _limit_advice(envelope: Envelope) -> str:
    """Return the end of the error text: which limit has ended the handler, and what to change."""
    if envelope.role != "request":
        return ". Raise the timeout of the handler."
    if envelope.deadline is None and envelope.expiration is None:
        return ", the limit of a request without a deadline. Send the request with a deadline."
    return ", the time that the caller's deadline left. Raise the timeout of the caller."


def _end_time(envelope: Envelope, leeway: int, longest: int) -> int | None:
    """Return the time when the handler is cancelled, in milliseconds since the epoch, or None."""
    if envelope.role != "request":
        # The service activator has set `deadline` to the current time plus the handler's timeout.
        return envelope.deadline
    if envelope.received is None:
        return None if envelope.deadline is None else envelope.deadline + leeway
    if envelope.expiration is not None:
        expires = envelope.received + envelope.expiration
        return expires if envelope.deadline is None else min(expires, envelope.deadline + leeway)
    return envelope.received + longest if envelope.deadline is None else envelope.deadline + leeway
