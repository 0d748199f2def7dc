"""Fields of the type `Iterable[…]`, whose values can be read only once.

pydantic validates the elements of such a field while they are read, and the encoder reads them. So
the elements are held in a list, from which they can be encoded and checked.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from typing_extensions import override

from bus.contracts.core_schema import CoreSchema, Definitions, fields_in, resolve
from bus.contracts.problems import Problem

__all__ = ["HeldElements", "find_held_element", "hold_elements", "iterator_fields"]

M = TypeVar("M", bound=BaseModel)
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
