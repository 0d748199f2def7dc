"""Log lines about an unexpected exception of the bus while it handles a message."""

import logging

from bus.messaging.debug_switch import exception_to_log
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label, message_facts, message_label

__all__ = ["log_failure"]


def log_failure(log: logging.Logger, envelope: Envelope, error: BaseException, text: str) -> None:
    """Log an error with the message that it concerns, its class and its location.

    Args:
        log: Logger of the module that caught the error.
        envelope: Message that was handled.
        error: Unexpected exception.
        text: Failed operation, such as "the settlement of the message failed".
    """
    facts = message_facts(envelope, **failure_facts(error))
    # log.exception is not used, because a traceback can show confidential values.
    log.error(
        "%s in %s: %s (%s)",
        message_label(envelope),
        envelope.queue,
        text,
        failure_label(facts),
        extra=facts,
        exc_info=exception_to_log(error),
    )
