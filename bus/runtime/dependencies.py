"""`Depends` in handlers: what they need beside their message, found for each call by fast-depends, the library of FastStream's own.

The library is loaded by who first writes `Depends`. A handler without it is registered, and called, as if this were not here.
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
"""The name by which a dependency asks for the context, whatever the handler calls it."""


def Depends(dependency: Callable[..., Any], *, use_cache: bool = True) -> Any:  # noqa: N802 - as it is called in FastStream and FastAPI
    """Stands for what a dependency gives, as the default of a handler's parameter.

    >>> @router.request(GetTranscript)
    ... async def get(request: GetTranscript, pool: Pool = Depends(open_pool)) -> Transcript: ...

    A dependency is a function, a coroutine function (a plain one runs in a thread) or a generator, which is left when the
    handler has ended. It may have dependencies, and may take `context` and, by the handler's name for it, the message.
    With `use_cache` it is called once for each message, however many ask for it.
    Raises `ConfigurationError` where fast-depends is not installed.
    """
    return _load_library().Depends(dependency, use_cache=use_cache, cast=False)


def dependencies_of(function: Callable[..., Any]) -> frozenset[str]:
    """The names of the parameters that are for fast-depends to fill; none where it is not even loaded."""
    loaded = sys.modules.get("fast_depends.dependencies")
    if loaded is None:
        return frozenset()
    hints = _hints(function)
    return frozenset(
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(parameter.default, loaded.Dependant)
        or _annotated(hints.get(name, parameter.annotation), loaded.Dependant)
    )


def inject(
    function: Callable[..., Awaitable[Any]], name: str, *, wants_context: bool
) -> Callable[[Any, Context], Awaitable[Any]]:
    """A handler that has dependencies, as one that takes message and context.

    `name` is what it is called in the `ContractError` where a dependency asks for what nobody has.
    """
    message_name, context_name = _own_parameters(function, name, wants_context=wants_context)
    known = {message_name, context_name, CONTEXT}

    def checked(model: Any) -> Any:
        missing = sorted(
            {
                item.field_name
                for item in model.flat_params
                if item.default_value is ... and item.field_name not in known
            }
        )
        if missing:
            raise ContractError(
                f"{name}: a dependency needs {', '.join(missing)}; "
                f"it may take {message_name} (the message), {CONTEXT}, and other dependencies"
            )
        return model

    # No casts: a message is valid already, and the context is nothing that pydantic could look into.
    call = _load_library().inject(
        function, cast=False, cast_result=False, dependency_provider=provider(), wrap_model=checked
    )

    @wraps(function)
    async def with_dependencies(message: Any, context: Context) -> Any:
        return await call(**{message_name: message, context_name: context, CONTEXT: context})

    return with_dependencies


@cache
def provider() -> Any:
    """Where dependencies are looked up, and can be replaced. Ours alone: FastStream's would cast their arguments."""
    return _load_library().Provider()


def _load_library() -> Any:
    try:
        return import_module("fast_depends")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Depends needs fast-depends; pip install 'trunkline[depends]'"
        ) from None


def _own_parameters(
    function: Callable[..., Any], name: str, *, wants_context: bool
) -> tuple[str, str]:
    """How the handler calls its message and its context."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters):
        raise ContractError(
            f"{name}: a handler with dependencies has no positional-only parameters; leave out the /"
        )
    filled = dependencies_of(function)
    own = [parameter.name for parameter in parameters if parameter.name not in filled]
    return own[0], own[1] if wants_context else CONTEXT


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - a name that is there for type checkers only; defaults say enough
        return {}


def _annotated(annotation: Any, kind: type) -> bool:
    return get_origin(annotation) is Annotated and any(
        isinstance(extra, kind) for extra in get_args(annotation)[1:]
    )
