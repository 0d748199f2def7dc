"""The parameters that a handler may have, for type checkers and at run time.

A handler's parameters are told apart by their annotations, and never by their number. The first
parameter is the message. Of the others, one may be the `Context`, and each may have `Depends` or a
default. One parameter of a transactional handler may be the `AsyncSession`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from bus.contracts.contract import Contract
from bus.errors import ContractError
from bus.runtime.declared_parameters import (
    declared_parameters,
    is_context,
    path_of,
    result_types,
    signature_of,
    types_in,
    wrapped_functions,
)
from bus.runtime.dependencies import dependency_of
from bus.runtime.handler_result import check_result_types
from bus.runtime.session_parameter import find_session

__all__ = ["HandlerSignature", "Registrar", "read_signature"]

Q = TypeVar("Q")
R = TypeVar("R")
P = ParamSpec("P")

RECEIVERS = ("self", "cls")
"""The usual names of the first parameter of a method."""


class Registrar(Protocol[Q, R]):
    """A decorator that registers a handler. The handler takes a message `Q`, and returns an `R`.

    The handler may take the context and dependencies as further parameters. A type checker cannot
    see `Depends` in `Annotated`, so the decorator itself checks the further parameters.
    """

    def __call__(
        self, handler: Callable[Concatenate[Q, P], Awaitable[R]], /
    ) -> Callable[Concatenate[Q, P], Awaitable[R]]:
        """Register `handler`, and return it unchanged.

        Args:
            handler: A coroutine function that takes the message and, optionally, the context and
                dependencies.

        Raises:
            ContractError: The handler is not a coroutine function, or has a parameter that the bus
                cannot fill. Or the queue already has a handler.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSignature:
    """The parameters of a handler that the bus fills."""

    path: str
    """The name of the handler in error messages."""
    message: Parameter
    is_first: bool
    """True if no other parameter precedes the message."""
    context: Parameter | None
    is_second: bool
    """True if the context can be passed as the second positional argument."""
    session: Parameter | None
    is_transactional: bool
    dependencies: Mapping[str, Any]
    """The markers that `Depends` has made, by the name of the parameter."""
    returns_coroutine: bool
    """True if the handler is a plain function that returns the coroutine of another function."""
    contract: Contract


def read_signature(
    function: Callable[..., Any], contract: Contract, *, is_transactional: bool = False
) -> HandlerSignature:
    """Return the parameters of a handler of `contract`.

    Args:
        function: The handler.
        contract: The contract of its message.
        is_transactional: True if one parameter can be the session of the store.

    Raises:
        ContractError: The function cannot be a handler. The error names the parameter.
    """
    is_coroutine_function = _check_coroutine(function)
    path = path_of(function)
    try:
        parameters = declared_parameters(function)
    except ContractError:
        _refuse_annotated_receiver(function, contract)
        raise
    markers = {each.name: dependency_of(each, path) for each in parameters}
    own = [each for each in parameters if markers[each.name] is None]
    _check_is_bound(function, own, contract)
    if not own or own[0].kind is Parameter.KEYWORD_ONLY:
        raise ContractError(
            f"{path} has no positional parameter for the message. Declare the message as its first "
            "parameter. If the function wraps another function, use functools.wraps."
        )
    message, others = own[0], own[1:]
    _check_message(message, contract, path)
    check_result_types(result_types(function), contract, path)
    session = find_session(others, contract, path, is_transactional=is_transactional)
    others = [each for each in others if each is not session]
    context = _find_context(others, path, hint=_wrapper_hint(function))
    signature = HandlerSignature(
        path=path,
        message=message,
        is_first=parameters[0] is message,
        context=context,
        is_second=parameters[1:2] == [context] and parameters[1].kind is not Parameter.KEYWORD_ONLY,
        session=session,
        is_transactional=is_transactional,
        dependencies={name: marker for name, marker in markers.items() if marker is not None},
        returns_coroutine=not is_coroutine_function,
        contract=contract,
    )
    _check_positional_only(signature, parameters)
    return signature


def _check_coroutine(function: Callable[..., Any]) -> bool:
    """Return True for a coroutine function, and False for a wrapper that returns its coroutine.

    Raises:
        ContractError: The function is neither of the two.
    """
    if inspect.isclass(function):
        raise ContractError(
            f"{path_of(function)} is a class. Register an instance of it, or a method of an "
            "instance."
        )
    if isinstance(function, classmethod):
        raise ContractError(
            f"{path_of(function)} is a classmethod that belongs to a class without a name yet. "
            "Register it after the class body, as an attribute of the class."
        )
    if _is_coroutine_function(function):
        return True
    if any(map(_is_coroutine_function, wrapped_functions(function))):
        return False
    raise ContractError(
        f"{path_of(function)} is not a coroutine function. Declare it with async def. "
        "If it wraps a coroutine function, use functools.wraps."
    )


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


def _check_is_bound(
    function: Callable[..., Any], own: Sequence[Parameter], contract: Contract
) -> None:
    """Refuse a method whose first parameter is its object instead of the message."""
    if _class_of(function) is None or not own:
        return
    is_object = own[0].annotation is Parameter.empty and own[0].name in RECEIVERS
    takes_message_later = any(_names_message(each, contract) for each in own[1:])
    if is_object or (takes_message_later and not _names_message(own[0], contract)):
        raise _method_error(function, own[0].name, contract)


def _refuse_annotated_receiver(function: Callable[..., Any], contract: Contract) -> None:
    """Refuse a method whose first parameter has its own class as the annotation.

    In a class body, the name of the class is not defined yet, so the annotation is only a text.
    """
    class_name = _class_of(function)
    if class_name is None:
        return
    first = next(iter(signature_of(function, follow_wrapped=False).parameters.values()), None)
    if first is None:
        return
    annotation = getattr(first.annotation, "__forward_arg__", first.annotation)
    if isinstance(annotation, str):
        written = annotation.strip("'\"").partition("[")[0].rpartition(".")[2]
        if written in {class_name, "Self"}:
            raise _method_error(function, first.name, contract)


def _class_of(function: Callable[..., Any]) -> str | None:
    """Return the name of the class whose body defines a function, or None."""
    qualname = getattr(function, "__qualname__", None)
    if not inspect.isfunction(function) or not isinstance(qualname, str):
        return None  # a method of an object, or a mock
    scope = qualname.rpartition(".")[0]
    return None if scope.endswith("<locals>") else scope.rpartition(".")[2] or None


def _method_error(
    function: Callable[..., Any], parameter: str, contract: Contract
) -> ContractError:
    decorator = f"router.{contract.kind}({contract.model.__name__})"
    name = path_of(function).rpartition(".")[2]
    return ContractError(
        f"{path_of(function)} is a method, and its first parameter {parameter!r} is not the "
        f"message. Register the method of an object: {decorator}(self.{name}), for example in "
        "__init__."
    )


def _names_message(parameter: Parameter, contract: Contract) -> bool:
    return parameter.annotation is not Parameter.empty and contract.model in types_in(
        parameter.annotation
    )


def _check_message(parameter: Parameter, contract: Contract, path: str) -> None:
    annotation = parameter.annotation
    if annotation is Parameter.empty or any(
        _can_be(kind, contract.model) for kind in types_in(annotation)
    ):
        return
    raise ContractError(
        f"{path}: the first parameter {parameter.name!r} has the type {_type_name(annotation)}, "
        f"but the message is of the class {contract.model.__name__}. "
        f"Declare the message as the first parameter, as {contract.model.__name__}."
    )


def _can_be(kind: Any, model: type) -> bool:
    """Return True if the message can have this type. Accept a type that cannot be compared."""
    if kind is Any:
        return True
    try:
        return issubclass(model, getattr(kind, "__origin__", kind))
    except TypeError:
        return True  # a type variable or a protocol


def _find_context(others: Sequence[Parameter], path: str, hint: str) -> Parameter | None:
    """Return the parameter for the context.

    Args:
        others: The parameters after the message, without dependencies.
        path: The name of the handler in error messages.
        hint: A text to append if a parameter has no annotation.

    Raises:
        ContractError: Another parameter is required, or two parameters are the context.
    """
    contexts = [each for each in others if is_context(each.annotation)]
    if len(contexts) > 1:
        names = " and ".join(repr(each.name) for each in contexts)
        raise ContractError(
            f"{path}: the parameters {names} both are the Context. Remove one of them."
        )
    for each in others:
        if each.default is not Parameter.empty or each in contexts:
            continue
        is_bare = each.annotation is Parameter.empty
        problem = (
            "has no annotation"
            if is_bare
            else f"has the type {_type_name(each.annotation)}, which the bus cannot provide"
        )
        raise ContractError(
            f"{path}: the required parameter {each.name!r} {problem}. "
            "Annotate it with Context, or give it Depends(…) or a default."
            f"{hint if is_bare else ''}"
        )
    return contexts[0] if contexts else None


def _wrapper_hint(function: Callable[..., Any]) -> str:
    if len(list(wrapped_functions(function))) == 1:
        return ""
    return (
        " functools.wraps has replaced the annotations of this wrapper. To keep them, use "
        'wraps(function, assigned=("__module__", "__name__", "__qualname__", "__doc__")).'
    )


def _check_positional_only(signature: HandlerSignature, parameters: Sequence[Parameter]) -> None:
    """Refuse positional-only parameters that the bus must pass by name."""
    names = [each.name for each in parameters if each.kind is Parameter.POSITIONAL_ONLY]
    context = signature.context
    is_late = context is not None and not signature.is_second and context.name in names
    if names and (signature.dependencies or signature.session or is_late):
        reason = "the context is not second"
        if signature.dependencies or signature.session:
            reason = "it has dependencies" if signature.dependencies else "it takes a session"
        raise ContractError(
            f"{signature.path} must not have positional-only parameters, because {reason}. "
            "Remove the / from its signature."
        )


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
