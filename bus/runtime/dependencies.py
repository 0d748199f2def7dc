"""`Depends` for handlers, implemented with the library fast-depends.

FastStream uses the same library. The first call of `Depends` imports it. Handlers without
dependencies do not use the library.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable
from functools import cache, wraps
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from bus.errors import ConfigurationError, ContractError
from bus.messaging.context import Context

__all__ = ["Depends", "dependencies_of", "inject", "provider"]

CONTEXT = "context"
"""The name of the parameter in which a dependency receives the context.

The handler itself may use another name for its context parameter.
"""


# FastStream and FastAPI use the same name.
def Depends(dependency: Callable[..., Any], *, use_cache: bool = True) -> Any:  # noqa: N802
    """Declare a dependency. Use the result as the default of a handler's parameter.

    >>> @router.request(GetInvoice)
    ... async def get(request: GetInvoice, pool: Pool = Depends(open_pool)) -> Invoice: ...

    The handler receives the value that the dependency returns or yields. A dependency can have
    three kinds of parameters: other dependencies, the context and the message. The context
    parameter has the name `context`. The message parameter has the same name as in the handler. The
    registration of the handler raises `ContractError` if a dependency has a parameter of a
    different kind without a default.

    Args:
        dependency: A coroutine function, a plain function, or a generator function with or without
            `async`. Functions without `async` run in a thread. After the handler has ended, a
            generator continues after its `yield`.
        use_cache: True to call the dependency once for each message, even if several parameters
            use it.

    Returns:
        A marker. When the handler is called, the value of the dependency replaces the marker.

    Raises:
        ConfigurationError: fast-depends is not installed.
    """
    return _load_library().Depends(dependency, use_cache=use_cache, cast=False)


def dependencies_of(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that fast-depends fills."""
    library = sys.modules.get("fast_depends.dependencies")
    if library is None:
        return frozenset()  # `Depends` was never called: its first call imports the library
    hints = _read_hints(function)
    return frozenset(
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(parameter.default, library.Dependant)
        or _is_annotated_with(hints.get(name, parameter.annotation), library.Dependant)
    )


def inject(
    function: Callable[..., Awaitable[Any]], name: str, *, wants_context: bool
) -> Callable[[Any, Context], Awaitable[Any]]:
    """Return a function that calls a handler with its dependencies.

    The arguments of the returned function are the message and the context.

    Args:
        function: The handler.
        name: The name of the handler in error messages.
        wants_context: True if the handler takes the context.

    Raises:
        ContractError: A dependency requires a parameter for which no value exists. Or the handler
            has positional-only parameters.
    """
    message_name, context_name = _find_own_parameters(function, name, wants_context=wants_context)
    provided = {message_name, context_name, CONTEXT}

    def check_parameters(model: Any) -> Any:
        missing = sorted(
            {
                item.field_name
                for item in model.flat_params
                if item.default_value is ... and item.field_name not in provided
            }
        )
        if missing:
            raise ContractError(
                f"{name}: a dependency requires unknown parameters: {', '.join(missing)}. "
                f"Use {message_name} (the message), {CONTEXT}, or other dependencies."
            )
        return model

    # `cast=False` because the message is valid already, and pydantic cannot validate the context.
    call = _load_library().inject(
        function,
        cast=False,
        cast_result=False,
        dependency_provider=provider(),
        wrap_model=check_parameters,
    )

    @wraps(function)
    async def with_dependencies(message: Any, context: Context) -> Any:
        return await call(**{message_name: message, context_name: context, CONTEXT: context})

    return with_dependencies


@cache
def provider() -> Any:
    """Return the fast-depends provider that calls the dependencies of all handlers.

    Tests replace dependencies in this provider. The bus does not use FastStream's provider, because
    that provider casts the arguments of dependencies.
    """
    return _load_library().Provider()


def _load_library() -> Any:
    try:
        return import_module("fast_depends")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Depends requires fast-depends, which is not installed. "
            "Install it: pip install 'trunkline[depends]'."
        ) from None


def _find_own_parameters(
    function: Callable[..., Any], name: str, *, wants_context: bool
) -> tuple[str, str]:
    """Return the names of two parameters of the handler: the message and the context."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters):
        raise ContractError(
            f"{name} must not have positional-only parameters, because it has dependencies. "
            "Remove the / from its signature."
        )
    dependencies = dependencies_of(function)
    own = [parameter.name for parameter in parameters if parameter.name not in dependencies]
    return own[0], own[1] if wants_context else CONTEXT


def _read_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation can name a type that only type checkers import
        return {}  # type hints are only needed for `Depends` in `Annotated`


def _is_annotated_with(annotation: Any, kind: type) -> bool:
    return get_origin(annotation) is Annotated and any(
        isinstance(extra, kind) for extra in get_args(annotation)[1:]
    )
