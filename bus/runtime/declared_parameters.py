"""The parameters of a user's function, with resolved annotations.

Annotations can be text: in quotes, or because of `from __future__ import annotations`. Their names
can belong to a module, to a function whose call declares the handler, or to a wrapped function.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from types import FrameType, MethodType, UnionType
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin, get_type_hints

from bus.errors import BusError, ContractError
from bus.messaging.context import Context

__all__ = [
    "declared_parameters",
    "is_context",
    "path_of",
    "result_types",
    "signature_of",
    "types_in",
    "wrapped_functions",
]

UNIONS = (Union, UnionType)
"""The origins of `X | Y` and `Optional[X]`."""
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
"""The parameter kinds of `*args` and `**kwargs`. A call can omit these parameters."""


def declared_parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters that a call of `function` can pass, each with its annotation as a type.

    `*args` and `**kwargs` are omitted. If `function` wraps another function (`functools.wraps`) and
    has `*args` or `**kwargs`, the parameters that they pass on are included. Parameters that a
    `functools.partial` has set are omitted.

    Raises:
        ContractError: An annotation cannot be resolved, or Python does not know the parameters.
    """
    try:
        own = signature_of(function, follow_wrapped=False)
        whole = signature_of(function, follow_wrapped=True)
    except (TypeError, ValueError) as error:  # for example, for the wrapper of functools.cache
        raise ContractError(
            f"{path_of(function)}: its parameters cannot be read. Write a function with async def "
            "that calls it."
        ) from error
    owners = list(wrapped_functions(function))
    bound = _bound_names(function)
    return [
        _resolve(_with_annotation(parameter, whole), whole, owners, path_of(function))
        for parameter in _reachable(own, whole)
        if parameter.name not in bound
    ]


def wrapped_functions(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield the function of a callable, and then each function that this function wraps."""
    current: Any = function
    while current is not None:
        current = _underlying(current)
        yield current
        current = getattr(current, "__wrapped__", None)


def result_types(function: Callable[..., Any]) -> list[Any]:
    """Return the types that the annotation of a function's result allows.

    The list is empty if the types are unknown: the function has no annotation, or a name of it
    cannot be resolved. `functools.wraps` copies the annotations of another function, whose result
    can be another one, so the types of a wrapper are unknown too.
    """
    plain = _underlying(function)
    if not inspect.isfunction(plain) or hasattr(plain, "__wrapped__"):
        return []
    try:
        annotation = signature_of(plain, follow_wrapped=False).return_annotation
        if annotation is inspect.Signature.empty:
            return []
        return types_in(_evaluate(annotation, plain))
    except Exception:  # noqa: BLE001 - the evaluation runs a user's code
        return []


def types_in(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows: the members of a union, or the type itself."""
    if get_origin(annotation) is Annotated:
        return types_in(get_args(annotation)[0])
    if get_origin(annotation) in UNIONS:
        return [member for part in get_args(annotation) for member in types_in(part)]
    for attribute in ("__value__", "__supertype__"):  # of `type X = …`, and of `NewType`
        if hasattr(annotation, attribute):
            return types_in(getattr(annotation, attribute))
    return [annotation]


def is_context(annotation: Any) -> bool:
    """Return True for `Context`, `Context | None` and other unions with `Context`."""
    return Context in types_in(annotation)


def path_of(function: Any) -> str:
    """Return the module and the qualified name of a function, for error messages."""
    if not callable(function) and not isinstance(function, classmethod):
        return f"a value of type {type(function).__name__}"
    named = function if hasattr(function, "__qualname__") else _underlying(function)
    name = getattr(named, "__qualname__", type(function).__qualname__)
    return f"{getattr(named, '__module__', type(function).__module__)}.{name}"


def _underlying(function: Any) -> Any:
    """Return the plain function that a partial, a method, a class or an object calls."""
    if isinstance(function, functools.partial):
        return _underlying(function.func)
    if isinstance(function, MethodType | staticmethod | classmethod):
        return _underlying(function.__func__)
    if inspect.isclass(function):
        return function.__init__
    if inspect.isroutine(function) or hasattr(function, "__wrapped__"):
        return function
    method = getattr(type(function), "__call__", None)  # noqa: B004 - the method, not the ability
    return method if inspect.isroutine(method) else function


def signature_of(function: Callable[..., Any], *, follow_wrapped: bool) -> inspect.Signature:
    """Return the signature of a function. Annotations stay as they are written.

    Raises:
        TypeError: The value cannot be called.
        ValueError: Python does not know the signature.
    """
    if sys.version_info >= (3, 14):
        # Python 3.14 evaluates annotations late. The default format raises NameError.
        from annotationlib import Format  # noqa: PLC0415 - the module is new in Python 3.14

        return inspect.signature(
            function, follow_wrapped=follow_wrapped, annotation_format=Format.FORWARDREF
        )
    return inspect.signature(function, follow_wrapped=follow_wrapped)


def _reachable(own: inspect.Signature, whole: inspect.Signature) -> list[Parameter]:
    """Return the named parameters of a wrapper, and those that its variadic parameters pass on."""
    kinds = {parameter.kind for parameter in own.parameters.values()}
    named = [each for each in own.parameters.values() if each.kind not in VARIADIC]
    if not kinds & {*VARIADIC} or own == whole:
        return named
    positional = [each for each in named if each.kind is not Parameter.KEYWORD_ONLY]
    inner = [each for each in whole.parameters.values() if each.kind not in VARIADIC]
    inner_positional = [each for each in inner if each.kind is not Parameter.KEYWORD_ONLY]
    passed = inner_positional[len(positional) :]
    if Parameter.VAR_POSITIONAL not in kinds:
        passed = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in passed]
    if Parameter.VAR_KEYWORD in kinds:
        passed = [*passed, *(each for each in inner if each.kind is Parameter.KEYWORD_ONLY)]
    names = {each.name for each in named}
    by_keyword = [each for each in named if each.kind is Parameter.KEYWORD_ONLY]
    return [*positional, *(each for each in passed if each.name not in names), *by_keyword]


def _bound_names(function: Callable[..., Any]) -> set[str]:
    return set(function.keywords) if isinstance(function, functools.partial) else set()


def _with_annotation(parameter: Parameter, whole: inspect.Signature) -> Parameter:
    """Return the parameter. If it has no annotation, use that of the wrapped function's parameter.

    `functools.wraps` does the same, but it loses deferred annotations in Python 3.14.
    """
    inner = whole.parameters.get(parameter.name)
    if parameter.annotation is not Parameter.empty or inner is None:
        return parameter
    return parameter.replace(annotation=inner.annotation)


def _resolve(
    parameter: Parameter, whole: inspect.Signature, owners: Sequence[Any], path: str
) -> Parameter:
    annotation = parameter.annotation
    if annotation is Parameter.empty or inspect.isclass(annotation):
        return parameter
    inner = whole.parameters.get(parameter.name)
    # `functools.wraps` copies the annotations of the wrapped function, which has other globals.
    is_copied = inner is not None and inner.annotation == annotation
    problem: Exception | None = None
    for owner in reversed(owners) if is_copied else owners:
        try:
            return parameter.replace(annotation=_evaluate(annotation, owner))
        except BusError:
            raise  # for example, `Depends` requires a library
        except Exception as error:  # noqa: BLE001 - the evaluation runs a user's code
            problem = problem or error
    if not _is_unresolved(annotation):
        return parameter  # only a part is unknown, such as Pool in Annotated["Pool", Depends(…)]
    name = getattr(problem, "name", None)
    cause = f"the name {name!r} is unknown" if name else f"it raises {type(problem).__name__}"
    raise ContractError(
        f"{path}: the annotation of the parameter {parameter.name!r} cannot be evaluated: {cause}. "
        "Import each name of the annotation at run time, and not only under TYPE_CHECKING."
    ) from problem


def _evaluate(annotation: object, owner: Any) -> Any:
    def probe() -> None: ...

    probe.__annotations__ = {"parameter": annotation}
    namespace = getattr(owner, "__globals__", {})
    return get_type_hints(probe, namespace, _scope(owner), include_extras=True)["parameter"]


def _is_unresolved(annotation: object) -> bool:
    if get_origin(annotation) in UNIONS:
        return any(map(_is_unresolved, get_args(annotation)))
    return isinstance(annotation, str | ForwardRef)


def _scope(owner: Any) -> Mapping[str, Any]:
    """Return the names that the function can use, except for its globals and builtins."""
    scope: dict[str, Any] = {}
    frame = inspect.currentframe()
    while frame is not None:
        if _is_enclosing(frame, owner):
            scope = {**frame.f_locals, **scope}  # an inner function hides names of an outer one
        frame = frame.f_back
    variables = zip(_free_names(owner), getattr(owner, "__closure__", None) or (), strict=False)
    for name, cell in variables:
        try:
            scope[name] = cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    types = getattr(owner, "__type_params__", ())
    return {**scope, **{each.__name__: each for each in types}}


def _free_names(owner: Any) -> tuple[str, ...]:
    code = getattr(owner, "__code__", None)
    return code.co_freevars if code is not None else ()


def _is_enclosing(frame: FrameType, owner: Any) -> bool:
    """Return True if the frame runs the function or class body that contains the definition."""
    name, outer = getattr(owner, "__qualname__", ""), frame.f_code.co_qualname
    return frame.f_globals is getattr(owner, "__globals__", None) and (
        name.startswith(f"{outer}.<locals>.") or name.rpartition(".")[0] == outer
    )
