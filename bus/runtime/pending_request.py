"""A request or job that waits for its reply, and the decoding of that reply."""

from typing import TypeVar, cast

from bus.contracts.contract import Contract, Message, decode
from bus.errors import BusError, Unknown, error_for
from bus.messaging.envelope import ERROR_TYPE, REPLY_SUFFIX, Envelope, ErrorReply

__all__ = ["decode_reply", "error_from_reply"]


def decode_reply(contract: Contract, answer: Envelope) -> Message | None:
    """The reply's or result's message; raises the error that an error reply carries."""
    error = error_from_reply(answer)
    if error is not None:
        raise error
    if answer.type != f"{contract.type}{REPLY_SUFFIX}":
        raise Unknown(
            f"{contract.type} was answered with {answer.type}; is its service another version of the bus?"
        )
    return cast("Message | None", decode(contract.reply, answer.body))


def error_from_reply(answer: Envelope) -> BusError | None:
    """The error that an error reply carries."""
    if answer.type != ERROR_TYPE:
        return None
    body: ErrorReply = decode(ErrorReply, answer.body)
    return error_for(body.code, body.message, maybe_executed=body.maybe_executed)


class PendingRequest:
    """What was sent, as far as an answer is held to it."""

    __slots__ = ("is_job", "proofs", "type")

    def __init__(self, type_: str, *, lasting: bool) -> None:
        self.type = type_
        self.proofs: tuple[str, ...] = ()
        """The token, or of a job the proof of each attempt: an error that answers something else is none."""
        self.is_job = lasting
        """Whether its answers prove themselves: those of a job do, whose result may be a long time in coming."""


R = TypeVar("R", bound=Message | None)
