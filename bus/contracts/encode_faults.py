"""Faults of encoding: the field of a message that pydantic could not encode."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from bus.contracts.iterators import HeldElements, find_held_element, hold_inside
from bus.contracts.problems import Problem

__all__ = ["find_unencodable"]

Key = Any
"""Name of a field, position in a list, or key of a dictionary."""
MAX_DEPTH = 12
"""Maximum number of names in a path. A value that is nested more deeply is named by its field."""
NOT_ENCODABLE = (
    "has a value that does not match its type, or is not valid Unicode. Correct the value"
)
CONTAINS_ITSELF = "contains itself, which JSON cannot express. Remove the reference to itself"
TOO_DEEP = (
    f"has a value that cannot be encoded, more than {MAX_DEPTH} levels inside the field. Correct "
    f"the value, or write a value with fewer levels"
)


class _Part(NamedTuple):
    name: str
    """Name to show. It contains no key of a dictionary, because keys can be confidential."""
    key: Key
    value: Any


def find_unencodable(
    message: BaseModel, model: type[BaseModel], iterators: Sequence[str] = ()
) -> Problem:
    """Return the path of the first field that cannot be encoded, and a text about its value.

    The path is empty if no single field is at fault. pydantic's error does not name the field, so
    the function encodes parts of the message. It halves the parts, so the time is proportional to
    the size of the message.

    Args:
        message: Message that cannot be encoded.
        model: Class whose fields are encoded.
        iterators: Fields of the type `Iterable[…]`, from `hold_elements`.
    """
    element = find_held_element(message, iterators)
    if element:
        return element, NOT_ENCODABLE
    keys: list[Key] = []
    names: list[str] = []
    value: Any = message
    entered: set[int] = set()
    while len(keys) <= MAX_DEPTH:
        entered.add(id(value))
        part = _first_unencodable(_parts_of(value), keys, message, model)
        if part is None:
            return "".join(names).removeprefix("."), NOT_ENCODABLE
        keys.append(part.key)
        names.append(part.name)
        value = part.value
        if id(value) in entered and _parts_of(value):
            return names[0].removeprefix("."), CONTAINS_ITSELF
    return names[0].removeprefix("."), TOO_DEEP


def _first_unencodable(
    parts: Sequence[_Part], keys: list[Key], message: BaseModel, model: type[BaseModel]
) -> _Part | None:
    """Return the first part that cannot be encoded by itself, or None.

    Args:
        parts: Parts of the container at the path `keys`.
        keys: Path from the message to the container.
        message: Message that cannot be encoded.
        model: Class whose fields are encoded.
    """
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        is_in_half = not _is_encodable(message, model, keys, half)
        parts = half if is_in_half else parts[len(half) :]
    if not parts or _is_encodable(message, model, keys, parts):
        return None
    return parts[0]


def _parts_of(value: Any) -> Sequence[_Part]:
    if isinstance(value, BaseModel):
        extra = value.__pydantic_extra__ or {}
        return [
            *(_Part(f".{name}", name, part) for name, part in value.__dict__.items()),
            *(_Part("[*]", name, part) for name, part in extra.items()),
        ]
    if isinstance(value, Mapping):
        return [_Part("[*]", key, part) for key, part in value.items()]
    if isinstance(value, HeldElements):
        value = value.items
    if isinstance(value, list | tuple):
        return [_Part(f"[{index}]", index, part) for index, part in enumerate(value)]
    return []


def _is_encodable(
    message: BaseModel, model: type[BaseModel], keys: list[Key], parts: Iterable[_Part]
) -> bool:
    # An iterator at which an earlier encoding stopped must begin again.
    message, _ = hold_inside(message)
    include: Any = dict.fromkeys((part.key for part in parts), True)
    for key in reversed(keys):
        include = {key: include}
    try:
        model.__pydantic_serializer__.to_json(
            message, include=include, by_alias=True, warnings="error"
        )
    except PydanticSerializationError:
        return False
    return True
