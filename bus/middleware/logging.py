"""Logging: one line for each message. It contains type, duration and outcome, but no payload."""

import logging as levels
import time
from collections.abc import Callable

from bus.errors import BusError, code_of
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_facts
from bus.messaging.handler import Handler, Middleware

__all__ = ["logging"]

# The logger is from the standard library, because an unconfigured structlog would print these lines
# to the standard output of the application.
log = levels.getLogger("bus.messages")


def logging(side: str, *, timer: Callable[[], float] = time.perf_counter) -> Middleware:
    """Log one line for each message.

    A success is logged at level debug. If debug is off, a success costs one comparison. A failed
    send is also logged at level debug, because the caller receives the exception. If a handler
    raises a `BusError`, the failure is logged at level info, because services raise `BusError` on
    purpose. If a handler raises another exception, the failure is logged at level error.

    The line has the class, the code and the frames of the exception. If the exception is a
    `BusError`, the line also has the exception's message. Messages of other exceptions could
    contain confidential data.

    Args:
        side: Verb of the line, "sent" or "handled".
        timer: Function that returns a time in seconds. The duration is the difference of two times.
    """
    expected_level, unexpected_level = (
        (levels.DEBUG, levels.DEBUG) if side == "sent" else (levels.INFO, levels.ERROR)
    )

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            started = timer()
            try:
                result = await inner(envelope)
            except Exception as error:
                level = expected_level if isinstance(error, BusError) else unexpected_level
                if log.isEnabledFor(level):
                    facts = {**_facts(envelope), **_failure(error), "ms": _ms(timer() - started)}
                    log.log(level, "message %s with an error", side, extra=facts)
                raise
            if log.isEnabledFor(levels.DEBUG):
                log.debug(
                    "message %s", side, extra={**_facts(envelope), "ms": _ms(timer() - started)}
                )
            return result

        return call

    return layer


def _facts(envelope: Envelope) -> dict[str, object]:
    return {
        "type": envelope.type,
        "message_id": envelope.id,
        "correlation_id": envelope.correlation_id or None,
        "attempt": envelope.attempt,
    }


def _failure(error: Exception) -> dict[str, object]:
    facts = {**failure_facts(error), "code": code_of(error)}
    return {**facts, "text": str(error)} if isinstance(error, BusError) else facts


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
