"""Requests and jobs that wait for a reply, and functions that decode the reply."""

from typing import TypeVar, cast

from bus.contracts.contract import Contract, Message, decode
from bus.contracts.payload import NO_CONTENT
from bus.errors import BusError, ContractViolation, Unknown, error_for
from bus.messaging.envelope import ERROR_TYPE, REPLY_SUFFIX, Envelope, ErrorReply
from bus.messaging.error_state import retry_after_of
from bus.runtime.error_subject import add_subject, subject_of

__all__ = ["check_reply", "decode_reply"]


def decode_reply(
    contract: Contract, reply: Envelope, *, job_id: str | None = None
) -> Message | None:
    """Return the message in the reply to a request, or the message in the result of a job.

    Args:
        contract: The contract of the request or job.
        reply: The reply or result.
        job_id: The id of the job, for the text of an error.

    Raises:
        BusError: The reply is an error reply. Its error code selects the subclass.
        Unknown: The reply has a different message type than the contract specifies.
            `maybe_executed` is true.
        ContractViolation: The payload does not match the contract. `maybe_executed` is true,
            because the service has handled the message.
    """
    check_reply(reply, contract.type, job_id)
    subject = subject_of(contract.type, job_id)
    noun = "reply" if job_id is None else "result"
    expected = f"{contract.type}{REPLY_SUFFIX}"
    if reply.type != expected:
        unknown = Unknown(
            f"{subject}: the {noun} has the type {reply.type}, not {expected}. "
            "Check that the service runs the same version of the bus.",
            maybe_executed=True,
        )
        unknown.origin = "service"
        raise unknown
    if contract.is_reply_optional and reply.body.strip() == NO_CONTENT:
        return None
    try:
        message = decode(
            contract.reply, reply.body, subject=f"{subject}: invalid {noun}", noun=noun
        )
    except BusError as error:
        error.maybe_executed, error.origin = True, "service"
        raise
    return cast("Message | None", message)


def check_reply(reply: Envelope, type_: str, job_id: str | None = None) -> None:
    """Raise the error in an error reply.

    Args:
        reply: The reply.
        type_: The type of the request or job. The text of the error begins with it.
        job_id: The id of the job.

    Raises:
        BusError: The reply is an error reply. Its error code selects the subclass.
        ContractViolation: The error reply does not have the form of wire format 1.
            `maybe_executed` is true.
    """
    if reply.type != ERROR_TYPE:
        return
    subject = f"{subject_of(type_, job_id)}: invalid error reply"
    try:
        body: ErrorReply = decode(ErrorReply, reply.body, subject=subject)
    except ContractViolation as error:
        error.maybe_executed, error.origin = True, "service"
        raise
    # A variable with the error would be a reference cycle, because the error's traceback has this
    # frame.
    raise add_subject(_error_of(body), type_, job_id)


def _error_of(body: ErrorReply) -> BusError:
    """Return the error that a service has answered with. An older service omits some members."""
    error = error_for(
        body.code, body.message, maybe_executed=body.maybe_executed, retryable=body.retryable
    )
    error.origin, error.retry_after = "service", body.retry_after
    error.retry_after = retry_after_of(error)
    if body.copies is not None:
        error.answered_copies = body.copies
    match body.executed:
        case "yes":
            error.stated_executed, error.maybe_executed = "yes", True
        case "no" if not body.maybe_executed:
            error.stated_executed = "no"
        case _:
            error.stated_executed = "maybe"
    return error


class PendingRequest:
    """A sent request or job, with the data to verify its replies."""

    __slots__ = ("is_job", "proofs", "rejection", "type")

    def __init__(self, type_: str, *, is_job: bool) -> None:
        self.type = type_
        self.proofs: tuple[str, ...] = ()
        """The token of a request, or the proofs of all attempts to send a job.

        The client rejects an error reply that refers to a different token or proof.
        """
        self.rejection: str | None = None
        """The reason why the last reply or update was rejected, or None."""
        self.is_job = is_job
        """True if the message is a job. Each reply to a job must have a proof.

        A token is not enough, because it can expire long before the result of a job arrives.
        """


R = TypeVar("R", bound=Message | None)
