"""Logging set-up: structlog formats the records of the bus and of all other libraries.

The output is JSON in production, and readable text on a terminal.
"""

import io
import logging
import re
import sys
from collections.abc import MutableMapping
from functools import partial
from typing import Any, TextIO

import structlog

from bus.messaging.context import current
from bus.settings import Settings

__all__ = ["configure_logging"]

Event = MutableMapping[str, Any]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
REPLACEMENT = "\ufffd"


def configure_logging(
    settings: Settings, *, stream: TextIO | None = None, all_frames: bool = False
) -> None:
    """Send all log records of this process to `stream`.

    The records of structlog and of the standard library's `logging` have the same format.
    An application calls this function once. A library must not call it. Each record that is written
    while a message is handled contains the message's correlation id.

    Args:
        settings: The log level and the log format.
        stream: The output. None: standard error.
        all_frames: True shows all frames of a failure as text. False leaves out the frames of the
            bus, if the failure has other frames. JSON always has all frames.
    """
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared_processors(),
            processors=_final_processors(settings, out, all_frames=all_frames),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for library in ("aio_pika", "aiormq", "asyncio"):
        # The bus already logs the events that these libraries log. At debug level aiormq logs whole
        # frames, which include payloads.
        logging.getLogger(library).setLevel(max(logging.ERROR, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _shared_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.contextvars.merge_contextvars,
        _add_message_ids,
        _drop_none_values,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _final_processors(
    settings: Settings, out: TextIO, *, all_frames: bool
) -> list[structlog.typing.Processor]:
    terminal = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    last: list[structlog.typing.Processor] = (
        [
            _replace_controls,
            partial(
                _render_with_frames,
                structlog.dev.ConsoleRenderer(
                    colors=out.isatty(), exception_formatter=_write_traceback
                ),
                all_frames=all_frames,
            ),
        ]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]


def _add_message_ids(_logger: Any, _method: str, event: Event) -> Event:
    context = current.get()
    if context is not None:
        event.setdefault("correlation_id", context.envelope.correlation_id)
        event.setdefault("message_id", context.envelope.id)
    return event


def _replace_controls(_logger: Any, _method: str, event: Event) -> Event:
    """Replace control characters, except tab and newline, in text for a terminal.

    Other services choose message types and ids. These texts must not control the operator's
    terminal.
    """
    return {
        name: CONTROL.sub(REPLACEMENT, value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _render_with_frames(
    renderer: structlog.dev.ConsoleRenderer,
    logger: Any,
    method: str,
    event: Event,
    *,
    all_frames: bool,
) -> str:
    """Return the text of a record, with each frame of a failure on a line of its own."""
    frames = event.pop("frames", None)
    text = renderer(logger, method, event)
    if not isinstance(frames, list) or "Traceback (most recent call last)" in text:
        return text
    others = [frame for frame in frames if not str(frame).startswith("bus/")]
    shown = frames if all_frames or not others else others
    return "\n".join([text, *(f"    {CONTROL.sub(REPLACEMENT, str(frame))}" for frame in shown)])


def _write_traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Write a traceback without control characters. Its text can be from another service."""
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, error)
    out.write(CONTROL.sub(REPLACEMENT, plain.getvalue()))


def _drop_none_values(_logger: Any, _method: str, event: Event) -> Event:
    return {name: value for name, value in event.items() if value is not None}
