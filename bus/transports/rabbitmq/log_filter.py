"""A filter for the logs of aio-pika and aiormq. These logs can contain whole messages."""

import logging
import re

__all__ = ["redact_library_logs"]

REDACTED_LOGGERS = (
    "aio_pika.channel",
    "aio_pika.connection",
    "aio_pika.exchange",
    "aio_pika.message",
    "aio_pika.queue",
    "aio_pika.robust_channel",
    "aio_pika.robust_connection",
    "aio_pika.robust_exchange",
    "aio_pika.robust_queue",
    "aio_pika.tools",
    "aiormq.channel",
    "aiormq.connection",
    "aiormq.connection.marshall",
)
ATTEMPT = "error when creating transport"
"""The beginning of aiormq's log line about a failed attempt to connect.

The filter drops these lines, because aiormq writes several of them a second while a broker is down.
The bus itself logs one line for each cause.
"""
PLACEHOLDER = re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
"""Pattern of a `%` placeholder in a log message."""


def redact_library_logs() -> None:
    """Remove arguments and tracebacks from the libraries' log lines.

    Lines below the level WARNING are dropped.

    At debug level aiormq logs every frame. At error level it logs a returned message with its body,
    if no publish waits for the message. A log level is not enough: if an application enables these
    loggers to find a bug, the loggers must still not log message contents.
    """
    for name in REDACTED_LOGGERS:
        # A second call has no effect: a logger does not add the same filter twice.
        logging.getLogger(name).addFilter(_redact)


def _redact(record: logging.LogRecord) -> bool:
    """Remove message contents from a log record. Return True if the record must be logged."""
    record.msg = PLACEHOLDER.sub("…", str(record.msg))
    record.args, record.exc_info, record.exc_text = (), None, None
    return record.levelno >= logging.WARNING and not record.msg.startswith(ATTEMPT)
