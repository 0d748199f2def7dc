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
    expected = expected_result(contract)
    if inspect.isawaitable(result):
        raise InvalidResult(
            f"{contract.type}: the handler returned {_close_awaitable(result)} that it did not "
            "await, so its work is not done. Write `await` before the call.",
            maybe_executed=True,
        )
    if contract.reply is not None and result is contract.reply:
        raise InvalidResult(
            f"{contract.type}: the handler returned the class {contract.reply.__name__}, not an "
            f"object of it. Write {contract.reply.__name__}(…).",
            maybe_executed=True,
        )
    returned = f"the class {result.__name__}" if inspect.isclass(result) else _type_name(result)
    raise InvalidResult(
        f"{contract.type}: the handler returned {returned}, not {expected}. Return {expected}.",
        maybe_executed=True,
    )


def expected_result(contract: Contract) -> str:
    """Return the types that a handler may return as words: `Invoice`, `Invoice or None`, `None`."""
    if contract.reply is None:
        return "None"
    return f"{contract.reply.__name__}{' or None' if contract.is_reply_optional else ''}"


def _type_name(result: object) -> str:
    return "None" if result is None else type(result).__name__


def _close_awaitable(result: object) -> str:
    """Close a coroutine. Return words for the awaitable, such as `the coroutine save`."""
    if isinstance(result, CoroutineType | GeneratorType):
        result.close()
        return f"the coroutine {result.__name__}"
    return f"an awaitable of type {type(result).__name__}"
