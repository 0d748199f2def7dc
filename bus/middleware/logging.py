"""Log lines about messages: what, how long, how it ended; never a payload."""

import logging as levels
import time
from collections.abc import Callable

import structlog

from bus.envelope import Envelope
from bus.errors import BusError
from bus.handler import Handler, Middleware

__all__ = ["logging"]

log = structlog.stdlib.get_logger("bus.messages")


def logging(side: str, *, timer: Callable[[], float] = time.perf_counter) -> Middleware:
    """One line a message, `side` being "sent" or "handled": debug where it went well; with debug off that costs one comparison.

    A failure to send is debug, too, since its caller holds the exception. A failure to handle is info where it is an
    error of the bus, which a service may well mean, and an error else. It has the error's class and code, and its text
    only where it is one of the bus: another's may hold a patient's data.
    """
    outcomes = levels.getLogger("bus.messages")
    meant, unforeseen = (levels.DEBUG, levels.DEBUG) if side == "sent" else (levels.INFO, levels.ERROR)

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            began = timer()
            try:
                result = await inner(envelope)
            except Exception as error:
                level = meant if isinstance(error, BusError) else unforeseen
                if outcomes.isEnabledFor(level):
                    log.log(level, f"{side}, and it failed", **_facts(envelope), **_failure(error), ms=_ms(timer() - began))
                raise
            if outcomes.isEnabledFor(levels.DEBUG):
                log.debug(side, **_facts(envelope), ms=_ms(timer() - began))
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
    facts = {"error": type(error).__name__}
    if isinstance(error, BusError):
        return {**facts, "code": error.code, "text": str(error)}
    return {**facts, "code": "internal", "where": _where(error)}


def _where(error: Exception) -> str | None:
    """File and line of the innermost frame: enough to find the fault, and without the values that a traceback's text could show."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
