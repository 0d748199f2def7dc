"""What the libraries below may log: their lines show whole messages, which are patients'."""

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
"""How aiormq's line begins about each attempt to connect, several a second while a broker is away; the link says it once for each cause."""
PLACE = re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
"""Where an argument would stand in a line."""


def redact_library_logs() -> None:
    """From now on the libraries' lines have no arguments and no traceback, and there are none below warning.

    At debug aiormq logs every frame; at error it logs a returned message, body included, that nobody waits for any more.
    A filter and not a level: an application that turns these loggers on, to look for a fault, must not turn that on, too.
    """
    for name in REDACTED_LOGGERS:
        logging.getLogger(name).addFilter(_without_contents)  # adding it twice is once


def _without_contents(record: logging.LogRecord) -> bool:
    record.msg = PLACE.sub("…", str(record.msg))
    record.args, record.exc_info, record.exc_text = (), None, None
    return record.levelno >= logging.WARNING and not record.msg.startswith(ATTEMPT)
