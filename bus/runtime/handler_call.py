"""The call of a handler: a function of the message, and of the context if the handler needs it."""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from bus.errors import InvalidResult
from bus.messaging.context import Context
from bus.messaging.failure_origin import blame_handler
from bus.runtime.dependencies import OwnParameters, inject
from bus.runtime.handler_signature import HandlerSignature
from bus.runtime.session_parameter import check_takes_session

__all__ = ["handler_call"]


def handler_call(
    function: Callable[..., Awaitable[Any]], signature: HandlerSignature
) -> tuple[Callable[..., Awaitable[Any]], bool]:
    """Return the function that calls a handler, and True if the function takes the context.

    A handler that can be called with the message, or with the message and the context, is returned
    itself.

    Raises:
        ContractError: A dependency requires a parameter for which no value exists. Or the handler
            is transactional, but takes no session.
    """
    call = _check_coroutine(function, signature) if signature.returns_coroutine else function
    context = signature.context
    if signature.dependencies:
        return wraps(function)(_inject(call, signature)), True
    if signature.is_transactional:
        check_takes_session(signature.path, takes_session=signature.session is not None)
        return wraps(function)(_with_session(call, signature)), True
    if context is None or signature.is_second:
        return call, context is not None

    @wraps(function)
    def with_context(message: Any, value: Context) -> Awaitable[Any]:
        return call(message, **{context.name: value})

    return with_context, True


def _check_coroutine(
    function: Callable[..., Any], signature: HandlerSignature
) -> Callable[..., Awaitable[Any]]:
    """Return a coroutine function that calls a plain function, and awaits its result."""

    @wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if not inspect.isawaitable(result):
            error = InvalidResult(
                f"{signature.path} returned {type(result).__name__}, not a coroutine. "
                "Return the coroutine of the wrapped function.",
                maybe_executed=True,
            )
            blame_handler(error, function)
            raise error
        return await result

    return awaited


def _with_session(
    call: Callable[..., Awaitable[Any]], signature: HandlerSignature
) -> Callable[[Any, Context], Awaitable[Any]]:
    context = None if signature.context is None else signature.context.name
    session = None if signature.session is None else signature.session.name

    def with_session(message: Any, value: Context) -> Awaitable[Any]:
        values: dict[str, Any] = {}
        if session is not None:
            values[session] = value.session
        if context is not None:
            values[context] = value
        return call(message, **values)

    return with_session


def _inject(
    call: Callable[..., Awaitable[Any]], signature: HandlerSignature
) -> Callable[[Any, Context], Awaitable[Any]]:
    message, context, session = signature.message.name, signature.context, signature.session

    def call_by_name(values: dict[str, Any]) -> Awaitable[Any]:
        # The message is passed by position, because a wrapper may have another name for it.
        return call(values.pop(message), **values) if signature.is_first else call(**values)

    return inject(
        call_by_name,
        signature.dependencies,
        OwnParameters(
            message=message,
            context=context.name if context is not None else None,
            session=session.name if session is not None else None,
            contract=signature.contract,
            is_transactional=signature.is_transactional,
            path=signature.path,
        ),
    )
