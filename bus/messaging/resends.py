"""Notice of a resend: the retry policy tells an outer layer that it sends a message again."""

from collections.abc import Callable
from contextvars import ContextVar

from bus.errors import BusError

__all__ = ["on_resend"]

on_resend: ContextVar[Callable[[BusError], None] | None] = ContextVar("bus.on_resend", default=None)
"""Function that is called before each resend, with the error of the failed attempt."""
