"""Limits of the calls to one service. The client attaches them to each request and job."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

from bus.errors import DeadlineExceeded
from bus.messaging.timers import format_seconds

__all__ = [
    "HANDLER_ENDED",
    "CallLimits",
    "attempt_advice",
    "limits_of_attempt",
    "name_attempt",
    "timeout_advice",
]

HANDLER_ENDED = "the handler did not end within"
"""Text of a service after the type, if the deadline has ended its handler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """The limits that the settings of this process have for the calls to one service."""

    setting: str | None = None
    """Setting that is the timeout of the message.

    None if the timeout comes from the caller, or from the message that is being handled.
    """
    retries: int | None = None
    """Maximum number of times that the client sends the message again. None sets no limit."""
    attempt_timeout: float | None = None
    """Seconds that one attempt waits for its reply. None: only the deadline ends the wait."""
    attempt_setting: str | None = None
    """Setting that is `attempt_timeout`. None if the bus does not know it."""
    attempt: int = 1
    """Number of the attempt to send the request, from 1. An error of the attempt shows it."""
    without_setting: "CallLimits | None" = field(init=False, repr=False, compare=False)
    """The limits of a message that has another timeout. None if no other limit is set."""

    def __post_init__(self) -> None:
        """Derive `without_setting` once, because many messages need it."""
        other: CallLimits | None = self
        if self.retries is None and self.attempt_setting is None:
            other = None
        elif self.setting is not None:
            other = CallLimits(retries=self.retries, attempt_setting=self.attempt_setting)
        object.__setattr__(self, "without_setting", other)


@lru_cache(maxsize=1024)
def limits_of_attempt(
    limits: CallLimits | None, attempt_timeout: float | None, attempt: int
) -> CallLimits:
    """Return the limits of one attempt to send a request.

    Args:
        limits: The limits of the request.
        attempt_timeout: Seconds that the attempt waits for its reply, or None.
        attempt: Number of the attempt, from 1.
    """
    return replace(limits or CallLimits(), attempt_timeout=attempt_timeout, attempt=attempt)


def timeout_advice(limits: CallLimits | None, verb: str = "raise") -> str:
    """Return `raise the timeout`, with the name of the setting that is the timeout."""
    if limits is None or limits.setting is None:
        return f"{verb} the timeout"
    return f"{verb} the timeout ({limits.setting})"


def attempt_advice(limits: CallLimits) -> str:
    """Return `raise the attempt_timeout`, with the name of its setting."""
    setting = limits.attempt_setting
    return "raise the attempt_timeout" + (f" ({setting})" if setting else "")


def name_attempt(error: DeadlineExceeded, type_: str, seconds: float, limits: CallLimits) -> None:
    """Add the attempt and its setting to the time-out that a service has reported.

    The service knows only a deadline. So its own advice would name another setting.

    Args:
        error: Error of the service, which gets the text.
        type_: Type of the request.
        seconds: Seconds of the attempt.
        limits: The limits of the attempt.
    """
    is_shortened = limits.attempt_timeout is None or seconds < limits.attempt_timeout
    remedy = timeout_advice(limits) if is_shortened else attempt_advice(limits)
    text, limit = str(error), format_seconds(seconds)
    if text.startswith(f"{type_}: {HANDLER_ENDED}"):
        text = (
            f"{type_}: {HANDLER_ENDED} {limit} in attempt {limits.attempt}. Check that the service "
            f"is not overloaded, or {remedy}."
        )
    else:  # such as a nested call of the service
        text = f"{text} Attempt {limits.attempt} had {limit}. Shorten the work, or {remedy}."
    error.args = (text,)
