"""Reply types: the classes that `Request[…]` and `Job[…]` accept as a reply or result."""

from collections.abc import Sequence
from types import UnionType
from typing import ForwardRef, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bus.errors import ContractError

__all__ = ["as_reply", "generic_class", "resolve_reply"]

M = TypeVar("M", bound=BaseModel)


def resolve_reply(reply: object, base: type[M], path: str) -> tuple[type[M] | None, bool]:
    """Return the class of a reply, and True if the reply can also be None.

    The class is None if the reply has no content.

    Args:
        reply: Type between the brackets of `Request[…]` or `Job[…]`.
        base: Base class of all messages.
        path: Import path of the request or job, for the error message.

    Raises:
        ContractError: The type is not a message class, and not a message class or None.
    """
    branches = get_args(reply) if get_origin(reply) in {Union, UnionType} else (reply,)
    classes = [branch for branch in branches if branch is not None and branch is not type(None)]
    if not classes:
        return None, False
    if len(classes) == 1 and isinstance(classes[0], type) and issubclass(classes[0], base):
        return classes[0], len(branches) > 1
    raise ContractError(f"{path}: the reply type {_problem(reply, classes)}")


def _problem(reply: object, classes: Sequence[object]) -> str:
    shown = reply.__name__ if isinstance(reply, type) else str(reply)
    if any(isinstance(each, str | ForwardRef | TypeVar) for each in classes):
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
