"""The subject of an error: the message that the error is about.

Every error that a sender catches begins with the type of its message, and only the client adds it.
If a service passes on the error of its own call, the text begins with the type of the sender's
message. The type of the service's call follows.
"""

import re

from bus.errors import BusError

__all__ = ["job_subject", "name_message", "with_subject"]

OTHER_JOB = re.compile(r"^ \(job [^)]*\)")


def job_subject(type_: str, job_id: str) -> str:
    """Return the subject of a job's errors: its type and its id."""
    return f"{type_} (job {job_id})"


def with_subject(text: str, type_: str, job_id: str | None = None) -> str:
    """Return the text of an error, beginning with its message.

    Args:
        text: The text. If it begins with the type, only the id of a job is added.
        type_: The type of the message.
        job_id: The id of the job, if the message is a job.
    """
    subject = type_ if job_id is None else job_subject(type_, job_id)
    # The colon or space is part of the comparison, because `ledger.add.v1` is not the subject of
    # "ledger.add.v10: …".
    if not text.startswith((f"{type_}:", f"{type_} ")):
        return f"{subject}: {text}"
    rest = text.removeprefix(type_)
    return text if job_id is None else f"{subject}{OTHER_JOB.sub('', rest)}"


def name_message(error: BusError, type_: str, job_id: str | None = None) -> None:
    """Let the text of an error begin with its message.

    The error itself is changed, so that its class, attributes and traceback stay as they are.

    Args:
        error: The error.
        type_: The type of the message.
        job_id: The id of the job, if the message is a job.
    """
    text = str(error)
    if error.args != (text,):
        return  # a class of the application that composes its text itself
    # A middleware of the application can raise the same object again and again, for messages of
    # several types. Each type is added only once, so that the text does not grow each time.
    if re.search(rf" {re.escape(type_)}(:| \(job )", text) is None:
        error.args = (with_subject(text, type_, job_id),)
