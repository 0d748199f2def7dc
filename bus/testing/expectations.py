"""Checks of the expectations in a test.

Without these checks an assertion such as `none(titel="Emma")` always passes.
"""

import inspect
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from bus.contracts.contract import Message
from bus.messaging.suggestions import did_you_mean
from bus.runtime.declared_parameters import types_in

__all__ = ["check_expectation"]

PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
"""Types whose values are compared by value. An object of another class can define its equality."""
CONTAINERS = (list, tuple, set, frozenset)


def check_expectation(
    models: Iterable[type[Message]], expected: object, fields: Mapping[str, object]
) -> None:
    """Refuse an expectation that no message can meet.

    Args:
        models: The possible classes of the messages.
        expected: The message that must be equal, or None.
        fields: Expected values by the name of the field.

    Raises:
        TypeError: The message has another class. Or a field does not exist, or can never have the
            value.
    """
    for model in models:
        if expected is not None and not isinstance(expected, model):
            raise TypeError(
                f"the expected message must be {_object_of(model.__name__)}, not "
                f"{_name_value(expected)}. Pass {model.__name__}(…), or fields by their names."
            )
        for name, value in fields.items():
            _check_field(model, name, value)
            if expected is not None and getattr(expected, name) != value:
                raise TypeError(
                    f"the field {name!r} has one value in the expected message, and another value "
                    f"by its name. Leave one of them out."
                )


def _check_field(model: type[Message], name: str, value: object) -> None:
    known = model.model_fields
    if name not in known:
        raise TypeError(
            f"{model.__name__} has no field {name!r}{did_you_mean(name, known) or '.'} "
            f"Its fields are: {', '.join(known) or 'none'}."
        )
    if not _can_equal(model, name, value):
        type_ = inspect.formatannotation(known[name].annotation)
        raise TypeError(
            f"the field {name!r} of {model.__name__} has the type {type_}, so it is never equal to "
            f"this {_name_value(value)}. Pass a value of that type."
        )


def _can_equal(model: type[Message], name: str, value: object) -> bool:
    """Return True if the field can have a value that is equal to `value`."""
    if not _is_compared_by_value(value):
        types = types_in(model.model_fields[name].annotation)
        return not (isinstance(value, dict) and all(map(_is_model, types)))
    adapter = _adapter_of(model, name)
    if adapter is None:
        return True
    try:
        return bool(adapter.validate_python(value) == value)
    except ValidationError:
        return False


def _is_compared_by_value(value: object) -> bool:
    """Return False if an object in the value can define its equality, as `mock.ANY` does."""
    if type(value) in CONTAINERS:
        return all(map(_is_compared_by_value, value))  # type: ignore[call-overload]  # a container
    if type(value) is dict:
        return all(_is_compared_by_value(part) for item in value.items() for part in item)
    return type(value) in PLAIN or isinstance(value, BaseModel)


@lru_cache(maxsize=1024)
def _adapter_of(model: type[Message], name: str) -> TypeAdapter[Any] | None:
    """Return the validator of a field's type, without the limits and validators of the field.

    Return None if pydantic cannot build it.
    """
    annotation = model.model_fields[name].annotation
    try:
        return None if annotation is None else TypeAdapter(annotation)
    except (PydanticUserError, NameError):
        return None


def _is_model(type_: object) -> bool:
    return inspect.isclass(type_) and issubclass(type_, BaseModel)


def _object_of(name: str) -> str:
    return f"an object of the class {name}"


def _name_value(value: object) -> str:
    return f"class {value.__name__}" if inspect.isclass(value) else type(value).__name__
