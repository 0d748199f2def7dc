"""Faults of encoding: the field of a message that pydantic could not encode."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

__all__ = ["find_unencodable"]

Key = str | int


def find_unencodable(message: BaseModel, model: type[BaseModel]) -> str:
    """Return the path of the first field that cannot be encoded, or an empty string.

    pydantic's error does not name the field, so the function encodes parts of the message. The path
    contains no keys of dictionaries, because keys can be confidential.

    Args:
        message: Message that cannot be encoded.
        model: Class whose fields are encoded.
    """
    value: Any = message
    keys: list[Key] = []
    names: list[str] = []
    while True:
        for name, key, part in _parts_of(value):
            if not _is_encodable(message, model, [*keys, key]):
                keys.append(key)
                names.append(name)
                value = part
                break
        else:
            return "".join(names).removeprefix(".")


def _parts_of(value: Any) -> Iterable[tuple[str, Key, Any]]:
    """Return the path to show, the key and the value of each part."""
    if isinstance(value, BaseModel):
        return [(f".{name}", name, part) for name, part in value.__dict__.items()]
    if isinstance(value, Mapping):
        return [("[*]", key, part) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", index, part) for index, part in enumerate(value)]
    return []


def _is_encodable(message: BaseModel, model: type[BaseModel], keys: list[Key]) -> bool:
    include: Any = True
    for key in reversed(keys):
        include = {key: include}
    try:
        model.__pydantic_serializer__.to_json(
            message, include=include, by_alias=True, warnings="error"
        )
    except PydanticSerializationError:
        return False
    return True
