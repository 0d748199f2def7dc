"""The filter for the log lines of aio-pika and aiormq, which can show whole messages."""

import logging
import re

__all__ = ["redact_library_logs"]

REDACTED_LOGGERS = (
    "aio_pika.channel",
    "aio_pika.connection",
    "aio_pika.exchange",
    "aio_pika.message",
    "aio_pika.queue",
    "aio_pika.tools",
    "aiormq.channel",
    "aiormq.connection",
    "aiormq.connection.marshall",
)
ATTEMPT = "error when creating transport"
"""The start of aiormq's line about a failed attempt to connect.

aiormq writes several of these lines a second while a broker is down. The bus itself logs one line
for each cause.
"""
PLACEHOLDER = re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
"""Pattern of an argument's placeholder in a line."""


def redact_library_logs() -> None:
    """Remove arguments and tracebacks from the libraries' log lines, and drop lines below warning.

    At debug level aiormq logs every frame. At error level it logs a returned message with its body
    if no publish waits for it any more. A filter is used and not a level: an application that
    enables these loggers to find a bug must not log message contents.
    """
    for name in REDACTED_LOGGERS:
        # A logger ignores a filter that it already has.
        logging.getLogger(name).addFilter(_redact)


def _redact(record: logging.LogRecord) -> bool:
    """Remove message contents from a log record, and return True if it may be logged."""
    record.msg = PLACEHOLDER.sub("…", str(record.msg))
    record.args, record.exc_info, record.exc_text = (), None, None
    return record.levelno >= logging.WARNING and not record.msg.startswith(ATTEMPT)
