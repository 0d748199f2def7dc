"""`Depends` for handlers, implemented with the library fast-depends.

FastStream uses the same library. The first call of `Depends` imports it. Handlers without
dependencies do not use the library.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin

from bus.errors import ConfigurationError, ContractError
from bus.messaging.context import Context
from bus.runtime.declared_parameters import is_context

__all__ = ["Depends", "dependency_of", "inject", "provider"]

CONTEXT = "context"
"""The name of the parameter in which a dependency receives the context.

The handler itself may use another name for its context parameter.
"""


# FastStream and FastAPI use the same name.
def Depends(dependency: Callable[..., Any], *, use_cache: bool = True) -> Any:  # noqa: N802
    """Declare a dependency. Use the result as the default of a handler's parameter.

    >>> @router.request(GetInvoice)
    ... async def get(request: GetInvoice, pool: Pool = Depends(open_pool)) -> Invoice: ...

    `pool: Annotated[Pool, Depends(open_pool)]` does the same.

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
        ContractError: `dependency` cannot be called.
    """
    if not callable(dependency):
        raise ContractError(
            f"Depends requires a function, not a value of type {type(dependency).__name__}. "
            "Pass the function itself, and do not call it."
        )
    return _load_library().Depends(dependency, use_cache=use_cache, cast=False)


def dependency_of(parameter: inspect.Parameter, path: str) -> Any:
    """Return the marker that `Depends` has made for a parameter, or None.

    Args:
        parameter: The parameter. Its annotation is resolved.
        path: The name of the handler in error messages.

    Raises:
        ContractError: The parameter has two markers. Or its marker is inside of another type, such
            as `Annotated[Pool, Depends(…)] | None`. Or `Depends` has no argument.
    """
    extras = (parameter.default, *_metadata_of(parameter.annotation))
    if any(extra is Depends for extra in extras):
        raise ContractError(
            f"{path}: the parameter {parameter.name!r} has Depends without a function. "
            "Write Depends(function)."
        )
    library = sys.modules.get("fast_depends.dependencies")
    if library is None:
        return None  # `Depends` was never called: its first call imports the library
    markers = [extra for extra in extras if isinstance(extra, library.Dependant)]
    if len(markers) > 1:
        raise ContractError(
            f"{path}: the parameter {parameter.name!r} has {len(markers)} dependencies. "
            "Write Depends once, in Annotated or as the default."
        )
    if not markers and _contains(parameter.annotation, library.Dependant):
        raise ContractError(
            f"{path}: Depends is inside of the annotation of the parameter {parameter.name!r}. "
            "Write Annotated[…, Depends(…)] around the whole type."
        )
    return markers[0] if markers else None


def inject(
    call: Callable[[dict[str, Any]], Awaitable[Any]],
    dependencies: Mapping[str, Any],
    *,
    message: str,
    context: str | None,
    path: str,
) -> Callable[[Any, Context], Awaitable[Any]]:
    """Return a function that calls a handler with its dependencies.

    The arguments of the returned function are the message and the context.

    Args:
        call: A function that calls the handler with arguments by name.
        dependencies: The markers of the handler's dependencies, by the name of the parameter.
        message: The name of the handler's parameter for the message.
        context: The name of the handler's parameter for the context. None if it has none.
        path: The name of the handler in error messages.

    Raises:
        ContractError: A dependency requires a parameter for which no value exists. Or the message
            has the name `context`.
    """
    if message == CONTEXT:
        raise ContractError(
            f"{path}: the message cannot have the name {CONTEXT!r}, because dependencies receive "
            "the context by this name. Rename the parameter."
        )
    own = [message] if context is None else [message, context]

    async def with_values(**values: Any) -> Any:
        return await call(values)

    # fast-depends reads this signature. It would resolve deferred annotations with the local
    # variables of all callers, and their names can hide the names of the handler's module.
    signature = inspect.Signature(
        [
            *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in own),
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=marker)
                for name, marker in dependencies.items()
            ),
        ]
    )
    with_values.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` reads it

    def check_parameters(model: Any) -> Any:
        _check_parameters(model.flat_params, {*own, CONTEXT}, message, path)
        return model

    try:
        # `cast=False` because the message is valid already, and pydantic cannot validate the
        # context.
        resolve = _load_library().inject(
            with_values,
            cast=False,
            cast_result=False,
            dependency_provider=provider(),
            wrap_model=check_parameters,
        )
    except (AssertionError, TypeError, ValueError) as error:  # the library's own errors
        raise ContractError(
            f"{path}: fast-depends refuses a dependency: {error}. "
            "Check the parameters and the annotations of the dependencies."
        ) from error

    async def with_dependencies(message_: Any, context_: Context) -> Any:
        return await resolve(**{message: message_, context or CONTEXT: context_, CONTEXT: context_})

    return with_dependencies


def _check_parameters(items: Iterable[Any], provided: set[str], message: str, path: str) -> None:
    """Check that each parameter of the dependencies has a value or a default."""
    others = [item for item in items if item.field_name not in provided]
    missing = sorted({item.field_name for item in others if item.default_value is ...})
    if missing:
        raise ContractError(
            f"{path}: a dependency requires unknown parameters: {', '.join(missing)}. "
            f"Use {message} (the message), {CONTEXT}, or other dependencies."
        )
    unused = sorted({item.field_name for item in others if is_context(item.field_type)})
    if unused:
        raise ContractError(
            f"{path}: a dependency takes the context as {', '.join(unused)}. "
            f"Name this parameter {CONTEXT}, because dependencies receive it by this name."
        )


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


def _metadata_of(annotation: object) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _contains(annotation: object, kind: type) -> bool:
    return isinstance(annotation, kind) or any(
        _contains(part, kind) for part in get_args(annotation)
    )
