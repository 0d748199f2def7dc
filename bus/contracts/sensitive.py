"""What of a message may be seen outside of it."""

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
    """The metadata of `Sensitive`."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Whoever reads the contract's JSON Schema sees it, too."""
        return {**handler(schema), "x-sensitive": True}

    @override
    def __repr__(self) -> str:
        return "Sensitive"


Sensitive = Annotated[T, Mark()]
"""`text: Sensitive[str]`: a patient's, or secret. Shown nowhere, not even where a message's other values are."""


class Hidden:
    """Stands where a value is not shown."""

    @override
    def __repr__(self) -> str:
        return "…"


HIDDEN = Hidden()
_shown: ContextVar[bool] = ContextVar("bus.shown_values", default=False)


@contextmanager
def shown_values() -> Iterator[None]:
    """Inside the block a message's repr shows its values, but for `Sensitive` ones: for tests, and for a look at made-up data."""
    token = _shown.set(True)
    try:
        yield
    finally:
        _shown.reset(token)


def shown_fields(message: BaseModel) -> Iterable[tuple[str | None, object]]:
    """Names and what may be seen of the values."""
    shown = _shown.get()
    hidden = sensitive_fields(type(message)) if shown else frozenset()
    return [
        (name, value if shown and name not in hidden else HIDDEN)
        for name, value in message.__dict__.items()
    ]


@cache
def sensitive_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names of the model's own fields that are `Sensitive`, in whole or in part."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if _marked(field.metadata) or _within(field.annotation)
    )


def _within(annotation: Any) -> bool:
    return _marked(getattr(annotation, "__metadata__", ())) or any(
        _within(part) for part in get_args(annotation)
    )


def _marked(metadata: Iterable[object]) -> bool:
    return any(isinstance(each, Mark) for each in metadata)
