"""`Depends` for handlers, implemented with the library fast-depends.

FastStream uses the same library. The first call of `Depends` imports it. Handlers without
dependencies do not use the library.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin

from bus.contracts.contract import Contract
from bus.errors import ConfigurationError, ContractError
from bus.messaging.context import Context
from bus.runtime.declared_parameters import is_context
from bus.runtime.session_parameter import check_takes_session, is_session, session_refusal

__all__ = ["Depends", "OwnParameters", "dependency_of", "inject", "provider"]

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
    parameter has the name `context`. The message parameter has the same name as in the handler. If
    the handler is transactional, parameters with the annotation `AsyncSession` receive its session.
    The registration of the handler raises `ContractError` if a dependency has a parameter of a
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnParameters:
    """The names of the parameters of a handler that have no dependency."""

    message: str
    context: str | None
    """None if the handler does not take the context."""
    session: str | None
    """None if the handler does not take the session."""
    contract: Contract
    is_transactional: bool
    path: str
    """The name of the handler in error messages."""

    @property
    def names(self) -> list[str]:
        """The names of all these parameters."""
        own = (self.message, self.context, self.session)
        return [name for name in own if name is not None]


def inject(
    call: Callable[[dict[str, Any]], Awaitable[Any]],
    dependencies: Mapping[str, Any],
    own: OwnParameters,
) -> Callable[[Any, Context], Awaitable[Any]]:
    """Return a function that calls a handler with its dependencies.

    The arguments of the returned function are the message and the context.

    Args:
        call: A function that calls the handler with arguments by name.
        dependencies: The markers of the handler's dependencies, by the name of the parameter.
        own: The other parameters of the handler.

    Raises:
        ContractError: A dependency requires a parameter for which no value exists. Or the message
            has the name `context`. Or the handler is transactional, but takes no session.
    """
    if own.message == CONTEXT:
        raise ContractError(
            f"{own.path}: the message cannot have the name {CONTEXT!r}, because dependencies "
            "receive the context by this name. Rename the parameter."
        )
    sessions: set[str] = set() if own.session is None else {own.session}

    async def with_values(**values: Any) -> Any:
        return await call(values)

    # fast-depends reads this signature. It would resolve deferred annotations with the local
    # variables of all callers, and their names can hide the names of the handler's module.
    signature = inspect.Signature(
        [
            *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in own.names),
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=marker)
                for name, marker in dependencies.items()
            ),
        ]
    )
    with_values.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` reads it

    def check_parameters(model: Any) -> Any:
        sessions.update(_session_names(model, own))
        _check_parameters(model.flat_params, {*own.names, CONTEXT, *sessions}, own)
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
            f"{own.path}: fast-depends refuses a dependency: {error}. "
            "Check the parameters and the annotations of the dependencies."
        ) from error

    if own.is_transactional:
        check_takes_session(own.path, takes_session=bool(sessions))
    message, context = own.message, own.context or CONTEXT

    async def with_dependencies(message_: Any, context_: Context) -> Any:
        return await resolve(**{message: message_, context: context_, CONTEXT: context_})

    async def with_session(message_: Any, context_: Context) -> Any:
        values = dict.fromkeys(sessions, context_.session)
        return await resolve(**{**values, message: message_, context: context_, CONTEXT: context_})

    return with_session if sessions else with_dependencies


def _session_names(model: Any, own: OwnParameters) -> set[str]:
    """Return the names of the parameters of dependencies that receive the session.

    fast-depends passes one value for each name, to the handler and to all dependencies.

    Raises:
        ContractError: The handler is not transactional, or such a name has another meaning.
    """
    models = [*_dependency_models(model)]
    items = [item for each in models for item in each.params]
    sessions = [item for item in items if is_session(item.field_type)]
    if not own.is_transactional:
        required = [item.field_name for item in sessions if item.default_value is ...]
        if required:
            raise ContractError(session_refusal(required[0], own.contract, own.path))
        return set()
    names = {item.field_name for item in sessions}
    others = {item.field_name for item in items if not is_session(item.field_type)}
    others |= {name for each in (model, *models) for name in each.dependencies}
    others |= {own.message, own.context or CONTEXT, CONTEXT}
    if clash := sorted(names & others):
        raise ContractError(
            f"{own.path}: a dependency takes the AsyncSession as {', '.join(clash)}, and another "
            "parameter has the same name. Rename one of them."
        )
    return names


def _dependency_models(model: Any) -> Iterator[Any]:
    """Yield the model of each dependency, also of the dependencies of dependencies."""
    for key in model.dependencies.values():
        dependency = model.dependency_provider.get_dependant(key)
        yield dependency
        yield from _dependency_models(dependency)


def _check_parameters(items: Iterable[Any], provided: set[str], own: OwnParameters) -> None:
    """Check that each parameter of the dependencies has a value or a default."""
    others = [item for item in items if item.field_name not in provided]
    missing = sorted({item.field_name for item in others if item.default_value is ...})
    if missing:
        raise ContractError(
            f"{own.path}: a dependency requires unknown parameters: {', '.join(missing)}. "
            f"Use {own.message} (the message), {CONTEXT}, or other dependencies."
        )
    unused = sorted({item.field_name for item in others if is_context(item.field_type)})
    if unused:
        raise ContractError(
            f"{own.path}: a dependency takes the context as {', '.join(unused)}. "
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
