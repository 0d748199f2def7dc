"""Logging set-up: structlog's processors for our lines and everybody else's; JSON in production, readable on a terminal."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from bus.messaging.context import current
from bus.settings import Settings

__all__ = ["configure_logging"]

Event = MutableMapping[str, Any]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send all log records, the standard library's too, to `stream` (standard error) in one form.

    Call it once in a process that is yours; a library must not. Every line written while handling a message carries
    that message's correlation id.
    """
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(), processors=_final(settings, out)
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("aio_pika", "aiormq", "asyncio"):
        # Their lines repeat ours, and aiormq logs whole frames, payloads included, at debug.
        logging.getLogger(chatty).setLevel(max(logging.ERROR, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _shared() -> list[structlog.typing.Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.contextvars.merge_contextvars,
        _handled_now,
        _without_nothing,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _final(settings: Settings, out: TextIO) -> list[structlog.typing.Processor]:
    terminal = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    last: list[structlog.typing.Processor] = (
        [
            _harmless,
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]


def _handled_now(_logger: Any, _method: str, event: Event) -> Event:
    context = current.get()
    if context is not None:
        event.setdefault("correlation_id", context.envelope.correlation_id)
        event.setdefault("message_id", context.envelope.id)
    return event


def _harmless(_logger: Any, _method: str, event: Event) -> Event:
    """Without controls but tab and newline, for a terminal: types and ids are others', who must not move our reader's cursor."""
    return {
        name: CONTROL.sub("\ufffd", value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _without_nothing(_logger: Any, _method: str, event: Event) -> Event:
    return {name: value for name, value in event.items() if value is not None}
