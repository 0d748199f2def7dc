"""Forward references: types of fields that are not defined when their class is defined."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, ForwardRef, get_args

from pydantic import BaseModel
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from bus.errors import ContractError

__all__ = ["complete"]


def complete(model: type[BaseModel], subject: str, suffix: str = "") -> None:
    """Resolve the types of a model's fields, after the modules with the types are imported.

    Args:
        model: Class of a message.
        subject: Type of the contract, for the error message.
        suffix: Text after the name of the field, such as the name of the reply's class.

    Raises:
        ContractError: The type of a field is not defined. The error names the field and the type.
    """
    if model.__pydantic_complete__:
        return
    try:
        # A depth of 0 hides the names of this function from the annotations.
        model.model_rebuild(raise_errors=True, _parent_namespace_depth=0)
    except PydanticUndefinedAnnotation as error:
        path = _field_with(str(error.name), model, set())
        place = f"the field `{path}`{suffix}" if path else f"a field of {model.__name__}"
        raise ContractError(
            f"{subject}: {place} needs the name {error.name!r}, which is not defined in its "
            f"module. Import {error.name!r} outside of `if TYPE_CHECKING:`, or define it in the "
            f"module."
        ) from None
    except PydanticUserError as error:
        raise ContractError(
            f"{subject}: the class {model.__name__} cannot be completed. Correct its fields: "
            f"{error.message}"
        ) from error


def _field_with(name: str, cls: type, seen: set[type]) -> str | None:
    """Return the path of the first field whose annotation contains an undefined name."""
    seen.add(cls)
    annotations = _annotations_of(cls)
    for field, annotation in annotations.items():
        if any(_mentions(part, name) for part in _parts_of(annotation)):
            return field
    for field, annotation in annotations.items():
        for part in _parts_of(annotation):
            if isinstance(part, type) and part not in seen:
                path = _field_with(name, part, seen)
                if path is not None:
                    return f"{field}.{path}"
    return None


def _annotations_of(cls: type) -> Mapping[str, Any]:
    if issubclass(cls, BaseModel):
        return {name: field.annotation for name, field in cls.__pydantic_fields__.items()}
    if dataclasses.is_dataclass(cls):
        return {field.name: field.type for field in dataclasses.fields(cls)}
    # A typed dictionary or a named tuple. Other classes with annotations are never searched deeply,
    # because pydantic does not read them.
    annotations: Mapping[str, Any] = vars(cls).get("__annotations__", {})
    return annotations


def _parts_of(annotation: object) -> Iterator[object]:
    """Yield an annotation, and the annotations inside it."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts_of(part)


def _mentions(annotation: object, name: str) -> bool:
    text = annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation
    return isinstance(text, str) and re.search(rf"\b{re.escape(name)}\b", text) is not None
