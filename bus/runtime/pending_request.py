"""A request or job that waits for its reply, and the decoding of that reply."""

from typing import TypeVar, cast

from bus.contracts.contract import Contract, Message, decode
from bus.errors import BusError, Unknown, error_for
from bus.messaging.envelope import ERROR_TYPE, REPLY_SUFFIX, Envelope, ErrorReply

__all__ = ["decode_reply", "error_from_reply"]


def decode_reply(contract: Contract, reply: Envelope) -> Message | None:
    """Return the message in the reply to a request, or in the result of a job.

    Args:
        contract: The contract of the request or job.
        reply: The reply or result.

    Raises:
        BusError: The error in an error reply, as the class of its code.
        Unknown: The reply has another type than the contract's reply.
        ContractViolation: The payload does not match the contract.
    """
    error = error_from_reply(reply)
    if error is not None:
        raise error
    if reply.type != f"{contract.type}{REPLY_SUFFIX}":
        raise Unknown(
            f"the reply to {contract.type} has the unknown type {reply.type}. "
            "Check that its service runs the same version of the bus."
        )
    return cast("Message | None", decode(contract.reply, reply.body))


def error_from_reply(reply: Envelope) -> BusError | None:
    """Return the error in an error reply, or None for any other reply."""
    if reply.type != ERROR_TYPE:
        return None
    body: ErrorReply = decode(ErrorReply, reply.body)
    return error_for(body.code, body.message, maybe_executed=body.maybe_executed)


class PendingRequest:
    """The facts about a sent request or job that its replies must match."""

    __slots__ = ("is_job", "proofs", "type")

    def __init__(self, type_: str, *, is_job: bool) -> None:
        self.type = type_
        self.proofs: tuple[str, ...] = ()
        """The token of a request, or the proof of each attempt to send a job.

        An error reply that refers to none of them is rejected.
        """
        self.is_job = is_job
        """True if each reply must carry a proof of its own, and not a token.

        The result of a job can arrive long after a token has expired.
        """


R = TypeVar("R", bound=Message | None)
