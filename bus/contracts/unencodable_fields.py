"""Search for the fields of a message that cannot be encoded. It runs only after a failure."""

from collections.abc import Iterator

from pydantic import BaseModel

__all__ = ["unencodable_fields"]

MAX_DEPTH = 8
"""Maximum number of nested models in a path. A message can contain itself."""


def unencodable_fields(
    message: BaseModel, model: type[BaseModel] | None = None, *, depth: int = MAX_DEPTH
) -> tuple[str, ...]:
    """Return the paths of the fields whose values cannot be encoded, such as `lines[2].price`.

    A path contains names of fields and positions in lists, and no values. The result is empty if
    the message as a whole cannot be encoded, for example because of a serializer of its class.

    Args:
        message: Message that cannot be encoded.
        model: Class whose fields are encoded. The default is the message's own class.
        depth: Maximum number of nested models in a path.
    """
    model = model or type(message)
    if not depth or not _can_encode(message, model, set()):
        return ()
    names = (*model.model_fields, *model.model_computed_fields)
    return tuple(
        path
        for name in names
        if not _can_encode(message, model, {name})
        for path in _paths(name, vars(message).get(name), depth)
    )


def _can_encode(message: BaseModel, model: type[BaseModel], fields: set[str]) -> bool:
    try:
        model.__pydantic_serializer__.to_json(
            message, include=fields, by_alias=True, warnings="error"
        )
    except Exception:  # noqa: BLE001 - a serializer of the user can raise any exception
        return False
    return True


def _paths(name: str, value: object, depth: int) -> Iterator[str]:
    """Yield the paths inside one field. Yield only the field if they are unknown."""
    inner = [
        f"{prefix}.{path}"
        for prefix, each in _nested(name, value)
        if isinstance(each, BaseModel)
        for path in unencodable_fields(each, depth=depth - 1)
    ]
    yield from inner or [name]


def _nested(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, list | tuple):
        for position, each in enumerate(value):
            yield f"{name}[{position}]", each
    else:
        yield name, value
