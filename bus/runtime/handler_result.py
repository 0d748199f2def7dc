"""The result of a handler: its check against the contract, and its encoding as a reply."""

import inspect
from collections.abc import Sequence
from types import CoroutineType, GeneratorType, NoneType
from typing import Any, cast

from typing_extensions import is_protocol

from bus.contracts.contract import Contract, Message
from bus.contracts.reply_type import as_reply, generic_class
from bus.errors import ContractError, ContractViolation, InvalidResult
from bus.messaging.envelope import Envelope, reply

__all__ = ["check_result", "check_result_types", "encode_result"]


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
    expected = _expected_result(contract)
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


def check_result_types(types: Sequence[Any], contract: Contract, path: str) -> None:
    """Refuse a handler if the annotation of its result allows only types of another contract.

    Args:
        types: The types that the annotation allows. Empty if they are unknown.
        contract: Contract of the handler.
        path: Name of the handler in the error message.

    Raises:
        ContractError: None of the types can be the reply or result.
    """
    if not types or any(_can_be_result(kind, contract) for kind in types):
        return
    shown = " | ".join("None" if kind is NoneType else _name_of(kind) for kind in types)
    noun, expected = "reply" if contract.kind == "request" else "result", _expected_result(contract)
    raise ContractError(
        f"{path}: the handler returns {shown}, but the {noun} of {contract.type} is {expected}. "
        f"Return {expected}, and write it as the annotation of the result."
    )


def _can_be_result(kind: Any, contract: Contract) -> bool:
    """Return True if a result can have this type. Accept a type that cannot be compared."""
    if kind is None or kind is NoneType:
        return contract.reply is None or contract.is_reply_optional
    kind = getattr(kind, "__origin__", kind)
    if kind in (Any, object) or not inspect.isclass(kind) or is_protocol(kind):
        return True
    try:
        if contract.reply is None:
            return issubclass(NoneType, kind)
        # `Page[Any]` and `Page[Item]` are two classes, but a `Page` can be the reply of both.
        reply, kind = generic_class(contract.reply), generic_class(kind)
        return issubclass(reply, kind) or issubclass(kind, reply)
    except TypeError:
        return True  # such as a TypedDict


def _name_of(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def _expected_result(contract: Contract) -> str:
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
