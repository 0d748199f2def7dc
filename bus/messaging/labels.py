"""Labels and facts of messages: the texts and the `extra` by which log records name a message.

Other services choose types, ids and error texts. The functions that return a text escape the
characters with which such a text could forge a log line (`escaped_text`).
"""

import re
from collections.abc import Mapping

from bus.messaging.envelope import Envelope
from bus.messaging.escaped_text import one_line

__all__ = [
    "UUID",
    "drop_type",
    "failure_label",
    "message_facts",
    "message_label",
    "one_line",
    "short_id",
]

UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
SHORT_ID_LENGTH = 8
MAX_ID_LENGTH = 64
"""Maximum number of characters of an id that is not a UUID."""
MAX_TYPE_LENGTH = 200


def message_label(envelope: Envelope) -> str:
    """Return the type and the short id of a message, such as `billing.quote.v1 a067102e`."""
    type_ = one_line(envelope.type[:MAX_TYPE_LENGTH]) or "message without type"
    return f"{type_} {short_id(envelope.id)}"


def message_facts(envelope: Envelope, **more: object) -> dict[str, object]:
    """Return the `extra` of a log record about a message.

    Args:
        envelope: Message that the record is about.
        **more: Further fields of the record.
    """
    return {
        "type": envelope.type,
        "queue": envelope.queue,
        "message_id": envelope.id,
        "correlation_id": envelope.correlation_id or None,
        **more,
    }


def failure_label(facts: Mapping[str, object], reason: str | None = None) -> str:
    """Return the class and the location of an error: `ValueError at billing/service.py:43 quote`.

    Args:
        facts: Result of `failure_facts`, or a mapping with these fields.
        reason: Class of the error and its text, `NotFound: no such account`. By default the label
            has only the class.
    """
    label, where = one_line(reason or _class_label(facts)), facts["where"]
    if where is None:
        return label
    return f"{label} ({where})" if reason and label != facts["error"] else f"{label} at {where}"


def drop_type(reason: str, envelope: Envelope) -> str:
    """Return the class and text of an error without the type of the message before the text.

    A line about a message begins with the type. Many texts of errors begin with the type, too.
    """
    name, separator, text = reason.partition(": ")
    return f"{name}{separator}{text.removeprefix(f'{envelope.type}: ')}"


def _class_label(facts: Mapping[str, object]) -> str:
    members = facts.get("members")
    names = f" ({', '.join(map(str, members))})" if isinstance(members, list) else ""
    return f"{facts['error']}{names}"


def short_id(message_id: str) -> str:
    """Return the first 8 characters of a UUID. Return another id as one line."""
    if UUID.fullmatch(message_id):
        return message_id[:SHORT_ID_LENGTH]
    return one_line(message_id[:MAX_ID_LENGTH])
