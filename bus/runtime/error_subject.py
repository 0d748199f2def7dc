"""The subject of an error: the message that the error is about.

Every error that a sender catches begins with the type of its message, and only the client adds it.
If a service passes on the error of its own call, the text begins with the type of the sender's
message. The type of the service's call follows.
"""

import re
from contextlib import suppress
from typing import TypeVar

from bus.errors import BusError

__all__ = ["add_subject", "name_message", "subject_of"]

E = TypeVar("E", bound=BusError)

JOB = r"( \(job [^ ()]*\))?"
"""Pattern of a job's id in a text.

Without the space, the search in a text with many such beginnings would take quadratic time.
"""


def subject_of(type_: str, job_id: str | None = None) -> str:
    """Return the subject of a message's errors: its type, and the id of a job."""
    return type_ if job_id is None else f"{type_} (job {job_id})"


def add_subject(error: E, type_: str, job_id: str | None = None) -> E:
    """Let the text of an error begin with its message.

    The error itself is changed, so that its class, attributes and traceback stay as they are. Its
    attribute `detail` keeps the text without the subject.

    Args:
        error: The error. If its text begins with the type, only the id of a job is added.
        type_: The type of the message.
        job_id: The id of the job, if the message is a job.

    Returns:
        The same error.
    """
    text, subject = str(error), subject_of(type_, job_id)
    # The colon or space is part of the pattern, because `ledger.add.v1` is not the subject of
    # "ledger.add.v10: …".
    named = re.match(rf"{re.escape(type_)}{JOB}(?=:| )", text)
    rest = f": {text}" if named is None else text[named.end() :]
    error.args = (f"{subject}{rest}",)
    error.__dict__.setdefault("detail", rest[2:] if rest.startswith(": ") else text)
    return error


def name_message(error: BusError, type_: str, job_id: str | None = None) -> None:
    """Let the text of a caught error begin with its message, unless the text names it already.

    An error whose class does not allow this keeps its text.

    Args:
        error: The error.
        type_: The type of the message.
        job_id: The id of the job, if the message is a job.
    """
    # The class can be one of the application, such as a frozen dataclass, or with a `__str__` that
    # fails. The application must receive its own error.
    with suppress(Exception):
        text = str(error)
        if error.args != (text,):
            return  # a class of the application that composes its text itself
        # A middleware of the application can raise the same object again and again, for messages of
        # several types. Each type is added only once, so that the text does not grow each time.
        if re.search(rf" {re.escape(type_)}{JOB}:", text) is None:
            add_subject(error, type_, job_id)
