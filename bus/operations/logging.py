"""Logging set-up: structlog formats the records of the bus and of all other libraries.

The output is JSON in production, and readable text on a terminal. An application that has its own
logging can use `MessageContextFilter` alone.
"""

import logging
import sys
from typing import TextIO

import structlog
from typing_extensions import override

from bus.messaging.context import correlation, current
from bus.messaging.trace_context import parse_traceparent
from bus.middleware.spans import active_ids
from bus.operations.log_rendering import (
    Event,
    RecordFormatter,
    add_context_variables,
    add_extra,
    protect_own_fields,
    render_console,
    render_json,
)
from bus.settings import Settings

__all__ = ["MessageContextFilter", "configure_logging"]

MESSAGE_FIELDS = (
    *("correlation_id", "causation_id", "message_id", "message_type"),
    *("trace_id", "span_id"),
)
"""Fields of a log record that identify the message that is being handled, and the active span."""


class MessageContextFilter(logging.Filter):
    """Filter that adds the ids of the handled message to each log record, for any formatter.

    The record gets the attributes `correlation_id`, `causation_id`, `message_id`, `message_type`,
    `trace_id` and `span_id`. Outside of a handler each attribute is an empty string, so that a
    format with `%(correlation_id)s` never fails. Inside `bus.correlated`, `correlation_id` is set.
    `trace_id` and `span_id` belong to the active span of OpenTelemetry, also outside of a handler.
    An attribute that the record already has is not changed.

    Add the filter to a handler, not to a logger. A logger does not apply its filters to the records
    of its child loggers.

    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(MessageContextFilter())
    >>> handler.setFormatter(logging.Formatter("%(correlation_id)s %(name)s %(message)s"))
    """

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes to the record. Return True, because the filter drops no record."""
        fields = vars(record)
        # A record that a program made without a logger can have the name None.
        if str(record.name).startswith("bus.") and "message_type" not in fields:
            # Some records of the bus are about a message whose handler has ended.
            fields["message_type"] = fields.get("type")
        for name, value in message_fields().items():
            if fields.get(name) is None:
                fields[name] = value or ""
        return True


def message_fields() -> dict[str, str | None]:
    """Return the fields of the handled message. The values are None if they are unknown.

    `trace_id` and `span_id` are those of the active span. Without OpenTelemetry a handler has no
    span, and `trace_id` is that of the handled message.
    """
    context, ids = current.get(), active_ids()
    if context is None:
        trace = dict(zip(("trace_id", "span_id"), ids or (None, None), strict=True))
        return {**dict.fromkeys(MESSAGE_FIELDS), "correlation_id": correlation.get(), **trace}
    envelope = context.envelope
    if ids is None:
        parent = parse_traceparent(envelope.traceparent)
        ids = (parent.trace_id, "") if parent is not None else ("", "")
    return {
        "correlation_id": envelope.correlation_id or envelope.id,
        "causation_id": envelope.causation_id,
        "message_id": envelope.id,
        "message_type": envelope.type,
        "trace_id": ids[0] or None,
        "span_id": ids[1] or None,
    }


def configure_logging(
    settings: Settings,
    *,
    stream: TextIO | None = None,
    overwrite: bool = True,
    all_frames: bool = False,
) -> None:
    """Send all log records of this process to `stream`.

    The records of structlog and of the standard library's `logging` have the same format.
    Python's warnings become records of the logger `py.warnings`.

    An application calls this function once. A library must not call it. Each record that is written
    while a message is handled contains the message's correlation id.

    With the log format `none` this function does nothing.

    Args:
        settings: The log level and the log format.
        stream: The output. None: standard error.
        overwrite: True replaces the handlers of the root logger, and the configuration of
            structlog. False respects the application's own logging: if the root logger has a
            handler, this function does nothing.
        all_frames: True shows all frames of a failure as text. False leaves out the frames of the
            bus, if the failure has other frames. JSON always has all frames.
    """
    root = logging.getLogger()
    if settings.log_format == "none" or (root.handlers and not overwrite):
        return
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        RecordFormatter(
            foreign_pre_chain=_shared_processors(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                render_console(out, all_frames=all_frames)
                if _is_for_terminal(settings, out)
                else render_json,
            ],
        )
    )
    root.handlers = [handler]
    _capture_warnings(all_lines=settings.debug)
    root.setLevel(settings.log_level.upper())
    for library in ("aio_pika", "aiormq", "asyncio"):
        # The bus already logs the events that these libraries log. At debug level aiormq logs whole
        # frames, which include payloads.
        logging.getLogger(library).setLevel(max(logging.ERROR, root.level))
    if structlog.is_configured() and not overwrite:
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            protect_own_fields,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _capture_warnings(*, all_lines: bool) -> None:
    """Write Python's warnings, such as that of a coroutine that was never awaited, to the log.

    By default a warning has only its first line. pydantic writes the values of a message into the
    lines that follow.
    """
    logging.captureWarnings(capture=True)
    warnings_log = logging.getLogger("py.warnings")
    warnings_log.removeFilter(_keep_first_line)
    if not all_lines:
        warnings_log.addFilter(_keep_first_line)


def _keep_first_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = (record.getMessage().splitlines() or [""])[0], ()
    return True


def _is_for_terminal(settings: Settings, out: TextIO) -> bool:
    return settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())


def _shared_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        add_extra,
        add_context_variables,
        _add_message_fields,
        _drop_none_values,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _add_message_fields(_logger: object, _method: str, event: Event) -> Event:
    for name, value in message_fields().items():
        # The bus's own records have the type of the message as `type`.
        if value and (name != "message_type" or event.get("type") != value):
            event.setdefault(name, value)
    return event


def _drop_none_values(_logger: object, _method: str, event: Event) -> Event:
    return {name: value for name, value in event.items() if value is not None}
