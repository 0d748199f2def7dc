"""Redaction: the repr of a message hides its values."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

__all__ = ["Sensitive", "sensitive_fields", "shown_fields", "shown_values"]

T = TypeVar("T")


class Mark:
    """Metadata of a `Sensitive` field."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON schema with `x-sensitive`, so that readers of the schema see the mark."""
        return {**handler(schema), "x-sensitive": True}

    @override
    def __repr__(self) -> str:
        return "Sensitive"


Sensitive = Annotated[T, Mark()]
"""Type of a field with confidential content, written `text: Sensitive[str]`.

The repr never shows the value, not even inside a `bus.testing.shown_values` block.
"""


class Hidden:
    """Placeholder for a value that is not shown."""

    @override
    def __repr__(self) -> str:
        return "…"


HIDDEN = Hidden()
_values_shown: ContextVar[bool] = ContextVar("bus.shown_values", default=False)


@contextmanager
def shown_values() -> Iterator[None]:
    """Inside the block, let the repr of a message show all values except `Sensitive` values.

    Use it in tests or with made-up data.
    """
    token = _values_shown.set(True)
    try:
        yield
    finally:
        _values_shown.reset(token)


def shown_fields(message: BaseModel) -> Iterable[tuple[str | None, object]]:
    """Return pairs of a field's name and its value. A placeholder replaces a hidden value."""
    show_values = _values_shown.get()
    hidden = sensitive_fields(type(message)) if show_values else frozenset()
    return [
        (name, value if show_values and name not in hidden else HIDDEN)
        for name, value in message.__dict__.items()
    ]


@cache
def sensitive_fields(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the fields whose type is `Sensitive` or contains `Sensitive`."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if _has_mark(field.metadata) or _contains_mark(field.annotation)
    )


def _contains_mark(annotation: Any) -> bool:
    return _has_mark(getattr(annotation, "__metadata__", ())) or any(
        _contains_mark(part) for part in get_args(annotation)
    )


def _has_mark(metadata: Iterable[object]) -> bool:
    return any(isinstance(item, Mark) for item in metadata)
