"""Log lines about messages: what, how long, how it ended; never a payload."""

import logging as levels
import time
from collections.abc import Callable

from bus.errors import BusError, code_of, error_location
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware

__all__ = ["logging"]

# The standard library's: an application that has not set up structlog must not find our lines on its standard output.
log = levels.getLogger("bus.messages")


def logging(side: str, *, timer: Callable[[], float] = time.perf_counter) -> Middleware:
    """One line a message, `side` being "sent" or "handled": debug where it went well; with debug off that costs one comparison.

    A failure to send is debug, too, since its caller holds the exception. A failure to handle is info where it is an
    error of the bus, which a service may well mean, and an error else. It has the error's class and code, and its text
    only where it is one of the bus: another's may hold a patient's data.
    """
    meant, unforeseen = (
        (levels.DEBUG, levels.DEBUG) if side == "sent" else (levels.INFO, levels.ERROR)
    )

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            began = timer()
            try:
                result = await inner(envelope)
            except Exception as error:
                level = meant if isinstance(error, BusError) else unforeseen
                if log.isEnabledFor(level):
                    facts = {**_facts(envelope), **_failure(error), "ms": _ms(timer() - began)}
                    log.log(level, "%s, and it failed", side, extra=facts)
                raise
            if log.isEnabledFor(levels.DEBUG):
                log.debug(side, extra={**_facts(envelope), "ms": _ms(timer() - began)})
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
    facts = {"error": type(error).__name__, "code": code_of(error)}
    return (
        {**facts, "text": str(error)}
        if isinstance(error, BusError)
        else {**facts, "where": error_location(error)}
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
