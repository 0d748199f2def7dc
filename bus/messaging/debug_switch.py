"""Development switch: with `BUS_DEBUG`, log lines about failures have the exception's traceback.

A traceback has the text of the exception, which can contain confidential data. So the traceback is
only in the log of this process, and never in a reply, a dead letter or a metric.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["debugging", "exception_to_log", "log_tracebacks"]

debugging: ContextVar[bool] = ContextVar("bus_debugging", default=False)
"""True if the current task belongs to a bus with the setting `debug`."""


def exception_to_log(error: BaseException) -> BaseException | None:
    """Return the value of `exc_info` for a log line about an error.

    Returns:
        The error if the current task belongs to a bus with the setting `debug`. None in all other
        tasks: the log line then has no traceback.
    """
    return error if debugging.get() else None


@contextmanager
def log_tracebacks(*, enabled: bool) -> Iterator[None]:
    """Set the switch for the tasks that are started in the block."""
    token = debugging.set(enabled)
    try:
        yield
    finally:
        debugging.reset(token)
