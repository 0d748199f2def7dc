"""Reply types: the classes that `Request[…]` and `Job[…]` accept as a reply or result."""

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, ForwardRef, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bus.errors import ContractError

__all__ = ["as_reply", "find_reply_type", "generic_class", "resolve_reply"]

M = TypeVar("M", bound=BaseModel)


def find_reply_type(model: type[BaseModel], bases: Sequence[type]) -> object:
    """Return the type between the brackets of `Request[…]` or `Job[…]`, or None without brackets.

    A class can also get its reply type from a generic class: `class Ask(Search[Item])`, with
    `class Search(Request[T], Generic[T])`.

    Args:
        model: Class of a request or job.
        bases: The classes `Request` and `Job`.
    """
    arguments: dict[object, object] = {}
    for cls in model.__mro__:
        generic = getattr(cls, "__pydantic_generic_metadata__", {})
        origin = generic.get("origin")
        if origin is None:
            continue
        bound = [_bind(each, arguments) for each in generic["args"]]
        if origin in bases:
            return type(None) if bound[0] is None else bound[0]
        arguments.update(zip(_parameters_of(origin), bound, strict=False))
    return None


def _bind(type_: object, arguments: Mapping[object, object]) -> object:
    """Return a type with the arguments of a generic class instead of its type variables."""
    if isinstance(type_, TypeVar):
        return arguments.get(type_, type_)
    origin = get_origin(type_)
    if origin is Annotated:
        return _bind(get_args(type_)[0], arguments)
    if origin in {Union, UnionType}:
        return Union[tuple(_bind(each, arguments) for each in get_args(type_))]  # noqa: UP007 - a tuple
    generic: Any = type_
    parameters = _parameters_of(type_)
    if any(each in arguments for each in parameters):
        return generic[tuple(arguments.get(each, each) for each in parameters)]
    return type_


def _parameters_of(type_: object) -> tuple[object, ...]:
    """Return the type variables of a generic message that have no arguments."""
    metadata = getattr(type_, "__pydantic_generic_metadata__", {})
    parameters: tuple[object, ...] = metadata.get("parameters", ())
    return parameters


def resolve_reply(
    reply: object, base: type[M], contracts: Sequence[type], path: str
) -> tuple[type[M] | None, bool]:
    """Return the class of a reply, and True if the reply can also be None.

    The class is None if the reply has no content.

    Args:
        reply: Type between the brackets of `Request[…]` or `Job[…]`.
        base: Base class of all messages.
        contracts: Base classes of the messages that are not a reply.
        path: Import path of the request or job, for the error message.

    Raises:
        ContractError: The type is not a message class, and not a message class or None. Or the
            class is a request, event or job, or has a type variable.
    """
    branches = get_args(reply) if get_origin(reply) in {Union, UnionType} else (reply,)
    classes = [branch for branch in branches if branch is not None and branch is not type(None)]
    if not classes:
        return None, False
    cls = classes[0]
    if len(classes) == 1 and isinstance(cls, type) and issubclass(cls, base):
        problem = _class_problem(cls, contracts)
        if problem is not None:
            raise ContractError(f"{path}: the reply type {problem}")
        return cls, len(branches) > 1
    raise ContractError(f"{path}: the reply type {_problem(reply, classes)}")


def _class_problem(cls: type, contracts: Sequence[type]) -> str | None:
    kind = next((each.__name__ for each in contracts if issubclass(cls, each)), None)
    if kind is not None:
        return (
            f"{cls.__name__} is a class of {kind}, which is a message with its own type. Write a "
            f"Message with the same fields."
        )
    if any(not _has_default(each) for each in _parameters_of(cls)):
        return (
            f"{cls.__name__} has a type variable, so its fields do not tell their types. Write "
            f"{cls.__name__}[…] with a type in the brackets."
        )
    return None


def _has_default(variable: object) -> bool:
    has_default = getattr(variable, "has_default", None)
    return has_default is not None and bool(has_default())


def _problem(reply: object, classes: Sequence[object]) -> str:
    shown = reply.__name__ if isinstance(reply, type) else str(reply)
    if any(isinstance(each, TypeVar) for each in classes):
        return (
            f"{shown} is a type variable. Write a class in the brackets, also of the generic class "
            f"from which this class is derived."
        )
    if any(isinstance(each, str | ForwardRef) for each in classes):
        return (
            f"{shown} is not a Message class, because it is only a name. Define the reply's class "
            f"before this class, and write the class."
        )
    if len(classes) > 1:
        return (
            f"{shown} has several classes, and a reply does not tell its class. Write one Message "
            f"with a field of this type."
        )
    return (
        f"{shown} is not a Message class. A reply is a JSON object, so that a service can add "
        f"fields later. Write a Message with a field of this type."
    )


def generic_class(model: type) -> type:
    """Return the generic class `Page` of `Page[Item]`. Return any other class itself."""
    metadata = getattr(model, "__pydantic_generic_metadata__", {})
    origin: type | None = metadata.get("origin")
    return origin or model


def as_reply(result: object, reply: type[M]) -> M | None:
    """Convert an instance of a generic message to its reply class, or return None if it differs.

    A type checker infers `Page[Item]` for `Page(items=[item])`, but the object is only a `Page`.

    Args:
        result: Result of a handler.
        reply: Reply class of the contract, such as `Page[Item]`.
    """
    origin = reply.__pydantic_generic_metadata__["origin"]
    if origin is None or type(result) is not origin:
        return None
    try:
        return reply.model_validate(result)
    except ValidationError:
        return None
