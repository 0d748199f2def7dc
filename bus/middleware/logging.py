"""Logging: one line for each message. It contains type, duration and outcome, but no payload."""

import logging as levels
import time
from collections.abc import Callable

from bus.errors import BusError, code_of
from bus.messaging.debug_switch import exception_to_log
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_facts
from bus.messaging.failure_origin import PROGRAMMING_ERRORS
from bus.messaging.handler import Handler, Middleware
from bus.messaging.labels import drop_type, failure_label, message_label, one_line, short_id

__all__ = ["logging"]

# The logger is from the standard library, because an unconfigured structlog would print these lines
# to the standard output of the application.
log = levels.getLogger("bus.messages")


CACHED_VERBS = {
    "hit": "answered from the cache",
    "joined": "answered by the call of an equal request",
}
"""Verbs of the line for a request that was not sent, by `Envelope.cached` of the reply."""


def logging(
    side: str, *, timer: Callable[[], float] = time.perf_counter, level: int = levels.DEBUG
) -> Middleware:
    """Log one line for each message.

    A success is logged at `level`. If this level is off, a success costs one comparison. A failed
    send is logged at level debug, because the caller receives the exception.

    A failed handler is logged at level error if its exception is not a `BusError`, or is `Internal`
    or `ContractError`. Other exceptions of the class `BusError` are logged at level info, because
    services raise them on purpose.

    The line has the class, the code and the frames of the exception. If the exception is a
    `BusError`, the line also has the exception's message. Messages of other exceptions could
    contain confidential data.

    Args:
        side: Verb of the line, "sent" or "handled".
        timer: Function that returns a time in seconds. The duration is the difference of two times.
        level: Level of the line for a success, a number of the module `logging`.
    """
    write_success = _log_handled if side == "handled" else _log_sent
    level_of_failure = _level_of_failure if side == "handled" else _debug

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            started = timer()
            try:
                result = await inner(envelope)
            except Exception as error:
                failure_level = level_of_failure(error)
                if log.isEnabledFor(failure_level):
                    _log_failure(failure_level, side, envelope, error, timer() - started)
                raise
            if log.isEnabledFor(level):
                write_success(level, envelope, result, _ms(timer() - started))
            return result

        return call

    return layer


def _debug(_error: Exception) -> int:
    return levels.DEBUG


def _level_of_failure(error: Exception) -> int:
    is_expected = isinstance(error, BusError) and not isinstance(error, PROGRAMMING_ERRORS)
    return levels.INFO if is_expected else levels.ERROR


def _log_handled(level: int, envelope: Envelope, _: Envelope | None, ms: float) -> None:
    log.log(
        level,
        "%s handled in %s ms (from %s, attempt %d, correlation %s)",
        message_label(envelope),
        ms,
        one_line(envelope.source),
        envelope.attempt,
        short_id(envelope.correlation_id) or "none",
        extra={**_facts(envelope), "ms": ms},
    )


def _log_sent(level: int, envelope: Envelope, reply: Envelope | None, ms: float) -> None:
    verb = "answered" if envelope.role == "request" else "sent"
    label, facts = message_label(envelope), {**_facts(envelope), "ms": ms}
    cached = None if reply is None else reply.cached
    if cached is not None:
        facts["cached"] = cached
        verb = CACHED_VERBS[cached]
    log.log(level, "%s %s in %s ms", label, verb, ms, extra=facts)


def _log_failure(
    level: int, side: str, envelope: Envelope, error: Exception, seconds: float
) -> None:
    ms, failure = _ms(seconds), _failure(error)
    log.log(
        level,
        "%s%s failed after %s ms%s: %s",
        "" if side == "handled" else "sending ",
        message_label(envelope),
        ms,
        f" in attempt {envelope.attempt}" if envelope.attempt > 1 else "",
        _reason(error, failure, envelope),
        extra={**_facts(envelope), **failure, "ms": ms},
        exc_info=exception_to_log(error),
    )


def _facts(envelope: Envelope) -> dict[str, object]:
    return {
        "type": envelope.type,
        "message_id": envelope.id,
        "correlation_id": envelope.correlation_id or None,
        "causation_id": envelope.causation_id,
        "source": envelope.source,
        "attempt": envelope.attempt,
    }


def _failure(error: Exception) -> dict[str, object]:
    facts = {**failure_facts(error), "code": code_of(error)}
    return {**facts, "text": _text_of(error)} if isinstance(error, BusError) else facts


def _text_of(error: BusError) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's class; the line must not replace the handler's error
        return "its text cannot be read"


def _reason(error: Exception, failure: dict[str, object], envelope: Envelope) -> str:
    """Return the class and the location of an error, and the text of a `BusError`."""
    if not isinstance(error, BusError):
        return failure_label(failure)
    return failure_label(failure, drop_type(f"{failure['error']}: {failure['text']}", envelope))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
