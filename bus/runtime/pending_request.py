"""Requests and jobs that wait for a reply, and functions that decode the reply."""

from typing import TypeVar, cast

from bus.contracts.contract import Contract, Message, decode
from bus.contracts.payload import NO_CONTENT
from bus.errors import BusError, Unknown, error_for
from bus.messaging.envelope import ERROR_TYPE, REPLY_SUFFIX, Envelope, ErrorReply

__all__ = ["decode_reply", "error_from_reply"]


def decode_reply(contract: Contract, reply: Envelope) -> Message | None:
    """Return the message in the reply to a request, or the message in the result of a job.

    Args:
        contract: The contract of the request or job.
        reply: The reply or result.

    Raises:
        BusError: The reply is an error reply. Its error code selects the subclass.
        Unknown: The reply has a different message type than the contract specifies.
        ContractViolation: The payload does not match the contract.
    """
    error = error_from_reply(reply)
    if error is not None:
        raise error
    if reply.type != f"{contract.type}{REPLY_SUFFIX}":
        raise Unknown(
            f"the reply to {contract.type} has the type {reply.type}, not "
            f"{contract.type}{REPLY_SUFFIX}. "
            "Check that the service runs the same version of the bus."
        )
    if contract.is_reply_optional and reply.body.strip() == NO_CONTENT:
        return None
    return cast("Message | None", decode(contract.reply, reply.body))


def error_from_reply(reply: Envelope) -> BusError | None:
    """Return the error in an error reply. Return None for a reply without an error."""
    if reply.type != ERROR_TYPE:
        return None
    body: ErrorReply = decode(ErrorReply, reply.body)
    return error_for(body.code, body.message, maybe_executed=body.maybe_executed)


class PendingRequest:
    """A sent request or job, with the data to verify its replies."""

    __slots__ = ("is_job", "proofs", "type")

    def __init__(self, type_: str, *, is_job: bool) -> None:
        self.type = type_
        self.proofs: tuple[str, ...] = ()
        """The token of a request, or the proofs of all attempts to send a job.

        The client rejects an error reply that refers to a different token or proof.
        """
        self.is_job = is_job
        """True if the message is a job. Each reply to a job must have a proof.

        A token is not enough, because it can expire long before the result of a job arrives.
        """


R = TypeVar("R", bound=Message | None)
