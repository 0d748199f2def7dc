"""Resends and retries: what the policies that send a message again have in common.

They tell an outer layer of each further attempt. They also keep the doubt of an earlier attempt.
"""

from collections.abc import Callable
from contextvars import ContextVar

from bus.errors import BusError, ConnectionLost, Unavailable

__all__ = ["mark_in_doubt", "on_resend", "tell_resend"]

on_resend: ContextVar[Callable[[BusError], None] | None] = ContextVar("bus.on_resend", default=None)
"""Function that is called before each resend or retry, with the error of the failed attempt."""


def tell_resend(error: BusError) -> None:
    """Tell the outer layer that a message is sent again after `error`."""
    notify = on_resend.get()
    if notify is not None:
        notify(error)


def mark_in_doubt(error: BusError) -> BusError:
    """Return the last error, in which an earlier attempt may have done the operation."""
    # Replace `Unavailable` of this process, because it would mean that the message was certainly
    # not sent.
    if type(error) is Unavailable and error.origin != "service":
        lost = ConnectionLost(f"{error} (an earlier attempt may have arrived)", maybe_executed=True)
        lost.origin, lost.retry_after = error.origin, error.retry_after
        return lost
    error.maybe_executed, error.stated_executed = True, "maybe"
    return error
