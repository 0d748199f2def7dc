"""The result of a handler: its check against the contract, and its encoding as a reply."""

from typing import cast

from bus.contracts.contract import Contract, Message
from bus.contracts.unencodable_fields import unencodable_fields
from bus.errors import InvalidResult
from bus.messaging.envelope import Envelope, reply

__all__ = ["check_result", "encode_result"]

MAX_FIELDS_SHOWN = 5


def encode_result(envelope: Envelope, contract: Contract, result: object, source: str) -> Envelope:
    """Return the reply to a request, or the result of a job, from what the handler returned.

    Args:
        envelope: Request or job that was handled.
        contract: Contract of the request or job.
        result: Value that the handler returned.
        source: Service of the handler.

    Raises:
        InvalidResult: The result is not an instance of the class in the contract, or cannot be
            encoded.
    """
    message = check_result(contract, result)
    try:
        return reply(envelope, message, source=source, model=contract.reply)
    except Exception as error:
        # The cause is not shown to the caller. An error of pydantic or of a serializer can contain
        # a value.
        raise InvalidResult(_describe(contract, message), maybe_executed=True) from error


def check_result(contract: Contract, result: object) -> Message | None:
    """Return the result of a handler if it has the class in the contract.

    Raises:
        InvalidResult: The result has another class.
    """
    if isinstance(result, contract.reply) if contract.reply else result is None:
        return cast("Message | None", result)
    expected = contract.reply.__name__ if contract.reply else "None"
    raise InvalidResult(
        f"{contract.type}: the handler returned {type(result).__name__}, not {expected}. "
        f"Return {expected}.",
        maybe_executed=True,
    )


def _describe(contract: Contract, message: Message | None) -> str:
    fields = () if message is None else unencodable_fields(message, contract.reply)
    names = ", ".join(fields[:MAX_FIELDS_SHOWN]) or "unknown"
    return (
        f"{contract.type}: the handler returned {type(message).__name__} with values that cannot "
        f"be encoded (fields: {names}). Return values that match their fields."
    )
