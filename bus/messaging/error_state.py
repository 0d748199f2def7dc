"""The state of an error: its origin, and what an error reply tells about the handler."""

from contextlib import suppress
from math import isfinite
from typing import Final

from bus.errors import BusError, Executed, member_errors

__all__ = [
    "MAX_RETRY_AFTER_SECONDS",
    "executed_on_wire",
    "mark_as_broker_error",
    "mark_as_call_error",
    "retry_after_of",
]

MAX_RETRY_AFTER_SECONDS: Final = 24 * 3600.0
"""Maximum of `retry_after`. A longer wait of a peer is read as this one."""
MESSAGE_CODES: Final = frozenset({"invalid_argument", "failed_precondition"})
"""Codes of a transport's errors that show a fault of the message or of the settings."""


def executed_on_wire(error: BaseException, *, has_run: bool) -> Executed:
    """Return whether the handler has begun or done the operation, for the error reply.

    Args:
        error: Error of the stage or of the handler. A group is `no` or `yes` only if each of its
            errors is.
        has_run: True if a handler may have run. Then only the handler's own statement counts. An
            error of a call states the work of another service, so it is `maybe`.
    """
    values = {_executed_on_wire(each, has_run) for each in member_errors(error)}
    return values.pop() if len(values) == 1 else "maybe"


def _executed_on_wire(error: BaseException, has_run: bool) -> Executed:  # noqa: FBT001 - see above
    if not isinstance(error, BusError):
        return "maybe" if has_run else "no"
    if has_run and (error.is_call_error or error.origin != "local"):
        return "maybe"
    stated = error.stated_executed
    if stated is None:
        return "maybe" if has_run or error.maybe_executed else "no"
    # The attributes of a user's class can have any value.
    if stated == "no":
        return "maybe" if error.maybe_executed else "no"
    return "yes" if stated == "yes" else "maybe"


def retry_after_of(error: BaseException) -> float | None:
    """Return the seconds after which the caller may try again, from 0 to one day, or None.

    A value of a user's error, or of a peer, is ignored if it is not a finite number from 0. For a
    group, return the longest wait of its errors.
    """
    waits = [
        float(min(each.retry_after or 0, MAX_RETRY_AFTER_SECONDS))
        for each in member_errors(error)
        if isinstance(each, BusError) and _is_wait(each.retry_after)
    ]
    return max(waits, default=None)


def _is_wait(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # An integer can be too large for `isfinite`.
    return value >= 0 and (isinstance(value, int) or isfinite(value))


def mark_as_broker_error(error: BaseException) -> None:
    """Set the origin of an error that the transport raised while it sent a message.

    An error that shows a fault of the message or of the settings stays `local`.
    """
    if isinstance(error, BusError) and error.origin == "local" and error.code not in MESSAGE_CODES:
        error.origin = "broker"


def mark_as_call_error(error: BusError) -> None:
    """Note that a call of the bus has raised the error, so that no handler can pass on its state.

    A class of the application that refuses the attribute keeps its state.
    """
    with suppress(Exception):
        error.is_call_error = True
