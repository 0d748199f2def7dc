"""Fallbacks: the replies that callers use if a service or the broker does not work."""

from collections.abc import Callable
from inspect import iscoroutine, iscoroutinefunction
from typing import Final, TypeVar, cast

from bus.contracts.contract import Contract, Message
from bus.errors import BusError, ContractError

__all__ = ["check_fallback", "is_covered", "reply_of"]

R = TypeVar("R", bound=Message | None)

COVERED_CODES: Final = frozenset({"unavailable", "resource_exhausted", "deadline_exceeded"})
"""Codes of the errors that a fallback replaces.

The service or the broker does not work, or a policy of this process has rejected the request. Any
other error is about the request itself, or is a programming error.
"""


def is_covered(error: BaseException) -> bool:
    """Return True if a fallback replaces the error."""
    return isinstance(error, BusError) and error.code in COVERED_CODES


def check_fallback(fallback: object, contract: Contract) -> None:
    """Check the argument `fallback` of a request, before the request is sent.

    Raises:
        ContractError: The fallback is neither a reply of this contract nor a function. Or it is an
            asynchronous function.
    """
    if isinstance(fallback, type) or not callable(fallback):
        _check_reply(fallback, contract, "fallback must be")
        return
    call = getattr(fallback, "__call__", None)  # noqa: B004 - an object's method can be asynchronous
    if iscoroutinefunction(fallback) or iscoroutinefunction(call):
        raise ContractError(_asynchronous(contract))


def reply_of(
    fallback: R | Callable[[BusError], R | None], contract: Contract, error: BusError
) -> R:
    """Return the reply of a fallback. Call it while `error` is handled.

    If the function returns None, and None is not a reply of the contract, `error` is raised. If a
    function raises another error, that error has `error` as its `__context__`.

    Raises:
        BusError: `error` itself, because the function has returned None.
        ContractError: The function has returned an object that is not a reply of this contract.
    """
    if not callable(fallback):
        return fallback
    reply: object = fallback(error)
    if iscoroutine(reply):
        reply.close()
        raise ContractError(_asynchronous(contract))
    if reply is None and not _permits_none(contract):
        raise error
    _check_reply(reply, contract, "the function in fallback must return")
    return cast("R", reply)


def _check_reply(value: object, contract: Contract, subject: str) -> None:
    if value is None and _permits_none(contract):
        return
    if contract.reply is not None and isinstance(value, contract.reply):
        return
    given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    expected = "None" if contract.reply is None else f"a {contract.reply.__name__}"
    advice = (
        "Write fallback=lambda error: None"
        if contract.reply is None
        else f"Write fallback={contract.reply.__name__}(…)"
    )
    raise ContractError(
        f"{contract.type}: {subject} {expected}, which is the reply of its contract, not {given}. "
        f"{advice}."
    )


def _permits_none(contract: Contract) -> bool:
    return contract.reply is None or contract.is_reply_optional


def _asynchronous(contract: Contract) -> str:
    return (
        f"{contract.type}: fallback must be a synchronous function. "
        "To await something, catch the error of the request instead."
    )
