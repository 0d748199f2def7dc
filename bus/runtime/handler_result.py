"""The result of a handler: its check against the contract, and its encoding as a reply."""

import inspect
from types import CoroutineType, GeneratorType
from typing import cast

from bus.contracts.contract import Contract, Message
from bus.contracts.reply_type import as_reply
from bus.errors import ContractViolation, InvalidResult
from bus.messaging.envelope import Envelope, reply

__all__ = ["check_result", "encode_result"]


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
        reason = f"a serializer raised {type(error).__name__}. Correct the serializer."
        if isinstance(error, ContractViolation):
            reason = str(error)
        raise InvalidResult(
            f"{contract.type}: the result of the handler cannot be encoded: {reason}",
            maybe_executed=True,
        ) from error


def check_result(contract: Contract, result: object) -> Message | None:
    """Return the result of a handler if it has the class in the contract.

    Raises:
        InvalidResult: The result has another class, or is an awaitable that the handler has not
            awaited. A coroutine is closed, so that Python does not warn of it.
    """
    if isinstance(result, contract.reply) if contract.reply else result is None:
        return cast("Message | None", result)
    if result is None and contract.is_reply_optional:
        return None
    converted = as_reply(result, contract.reply) if contract.reply else None
    if converted is not None:
        return converted
    expected = contract.reply.__name__ if contract.reply else "None"
    if inspect.isawaitable(result):
        raise InvalidResult(
            f"{contract.type}: the handler returned {_close_awaitable(result)} that it did not "
            "await, so its work is not done. Write `await` before the call.",
            maybe_executed=True,
        )
    raise InvalidResult(
        f"{contract.type}: the handler returned {type(result).__name__}, not {expected}. "
        f"Return {expected}.",
        maybe_executed=True,
    )


def _close_awaitable(result: object) -> str:
    """Close a coroutine. Return words for the awaitable, such as `the coroutine save`."""
    if isinstance(result, CoroutineType | GeneratorType):
        result.close()
        return f"the coroutine {result.__name__}"
    return f"an awaitable of type {type(result).__name__}"
