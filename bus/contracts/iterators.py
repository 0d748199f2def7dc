"""Fields of the type `Iterable[…]`, whose values can be read only once.

pydantic validates the elements of such a field while they are read, and the encoder reads them. So
the elements are held in a list, from which they can be encoded and checked.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaValidator
from typing_extensions import override

from bus.contracts.core_schema import CoreSchema, Definitions, fields_in, resolve
from bus.contracts.problems import Problem, inside

__all__ = ["HeldElements", "find_held_element", "hold_elements", "hold_inside", "iterator_fields"]

M = TypeVar("M", bound=BaseModel)
VALIDATED: type[Iterator[Any]] = type(SchemaValidator({"type": "generator"}).validate_python([]))
"""Class of the iterators with which pydantic validates the elements of an `Iterable[…]`."""
INVALID = "has a value that does not match its type. Correct the value"


class HeldElements(Iterator[Any]):
    """Iterator that begins again after its end."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.position = 0
        """Number of elements that were read since the begin."""

    @override
    def __next__(self) -> Any:
        if self.position == len(self.items):
            self.position = 0
            raise StopIteration
        self.position += 1
        return self.items[self.position - 1]


def iterator_fields(fields: CoreSchema, definitions: Definitions) -> tuple[str, ...]:
    """Return the names of the fields of a message whose type is `Iterable[…]`, also with None."""
    return tuple(
        name for name, each in fields_in(fields) if _is_iterator(each["schema"], definitions)
    )


def _is_iterator(schema: CoreSchema, definitions: Definitions) -> bool:
    schema = resolve(schema, definitions)
    while schema["type"] in {"default", "nullable"}:
        schema = resolve(schema["schema"], definitions)
    is_iterator: bool = schema["type"] == "generator" and "serialization" not in schema
    return is_iterator


def hold_elements(message: M, names: Iterable[str]) -> tuple[M, Problem | None]:
    """Return a copy of a message whose iterators can be read again, and the first problem.

    An element that does not match its type is a problem. An exception of the sender's own generator
    passes.

    Args:
        message: Message to encode.
        names: Fields of the type `Iterable[…]`.
    """
    held = {}
    for name in names:
        value = getattr(message, name, None)
        if not isinstance(value, Iterable) or isinstance(value, str | bytes):
            continue
        items: list[Any] = []
        try:
            for item in value:
                items.append(item)  # noqa: PERF402 - the number of items tells which one failed
        except ValidationError:
            return message, (f"{name}[{len(items)}]", INVALID)
        held[name] = HeldElements(items)
    return message.model_copy(update=held) if held else message, None


def find_held_element(message: BaseModel, names: Iterable[str]) -> str:
    """Return the path of the element at which the encoding of a message stopped, or an empty text.

    Args:
        message: Copy of a message, from `hold_elements`.
        names: Fields of the type `Iterable[…]`.
    """
    for name in names:
        value = getattr(message, name, None)
        if isinstance(value, HeldElements) and value.position:
            return f"{name}[{value.position - 1}]"
    return ""


class _UnmatchedElementError(Exception):
    """Error for an element inside a field that does not match its type."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


def hold_inside(message: M) -> tuple[M, Problem | None]:
    """Return a copy of a message whose inner iterators can be read again, and the first problem.

    An inner iterator is inside a field, such as in `list[Iterable[int]]`, or in a model in a field.

    Args:
        message: Message to encode.
    """
    try:
        return _hold(message), None
    except _UnmatchedElementError as error:
        return message, error.problem
    except RecursionError:  # a value that contains itself, which the encoder refuses
        return message, None


def _hold(value: Any) -> Any:
    """Return a value without iterators of pydantic, or the same object if it has none."""
    if isinstance(value, VALIDATED):
        return HeldElements(_read(value))
    if isinstance(value, HeldElements):
        return HeldElements([_hold_part(f"[{i}]", each) for i, each in enumerate(value.items)])
    if isinstance(value, list | tuple):
        items = [_hold_part(f"[{index}]", each) for index, each in enumerate(value)]
        make = getattr(value, "_make", type(value))
        return value if _is_same(items, value) else make(items)
    if isinstance(value, dict):
        held = {key: _hold_part("[*]", each) for key, each in value.items()}
        return value if _is_same(held.values(), value.values()) else held
    names = [each.name for each in fields(value)] if is_dataclass(value) else ()
    if isinstance(value, BaseModel):
        names = [*value.__dict__]
    changed = _changed_fields(value, names)
    if not changed or isinstance(value, BaseModel):
        return value.model_copy(update=changed) if changed else value
    copied = copy(value)
    for name, part in changed.items():
        object.__setattr__(copied, name, part)  # the class can be frozen
    return copied


def _read(values: Iterator[Any]) -> list[Any]:
    items: list[Any] = []
    try:
        for item in values:
            items.append(_hold_part(f"[{len(items)}]", item))
    except ValidationError:
        raise _UnmatchedElementError((f"[{len(items)}]", INVALID)) from None
    return items


def _hold_part(name: str, part: Any) -> Any:
    try:
        return _hold(part)
    except _UnmatchedElementError as error:
        raise _UnmatchedElementError(inside(name, error.problem)) from None


def _changed_fields(value: Any, names: Iterable[str]) -> Mapping[str, Any]:
    parts = {name: getattr(value, name, None) for name in names}
    held = {name: _hold_part(name, part) for name, part in parts.items()}
    return {name: part for name, part in held.items() if part is not parts[name]}


def _is_same(parts: Iterable[Any], others: Iterable[Any]) -> bool:
    return all(part is other for part, other in zip(parts, others, strict=True))
