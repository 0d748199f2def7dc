"""Checks of values: functions that find a value which pydantic encodes with a loss.

`bus.contracts.guards` composes them for a message class.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

from pydantic import BaseModel

__all__ = [
    "Check",
    "Problem",
    "check_any",
    "check_branches",
    "check_elements",
    "check_fields",
    "check_instance",
    "check_keys",
    "check_number",
    "check_positions",
    "check_values",
]

Problem: TypeAlias = tuple[str, str]
"""Path of a field, and a text about its value, without the value."""
Check: TypeAlias = Callable[[Any], Problem | None]
"""Function that returns the first problem of a value, or None."""

ELEMENTS = (list, tuple, set, frozenset)
NOT_FINITE = (
    "is not a finite number, and JSON has only finite numbers. Send None or a text instead of NaN "
    "or infinity"
)
_lost_fields: dict[tuple[type, type], str | None] = {}
"""Field that a subclass adds to a class, by subclass and class."""


def check_number(value: Any) -> Problem | None:
    """Return a problem if a value is NaN or infinity."""
    if isinstance(value, float):
        return None if isfinite(value) else ("", NOT_FINITE)
    is_lost = isinstance(value, Decimal) and not value.is_finite()
    return ("", NOT_FINITE) if is_lost else None


def check_any(value: Any) -> Problem | None:
    """Return the first NaN or infinity in a value of any type."""
    if isinstance(value, float | Decimal):
        return check_number(value)
    if isinstance(value, str | bytes | int) or value is None:
        return None
    for name, part in _parts_of(value):
        problem = check_any(part)
        if problem is not None:
            return _inside(name, problem)
    return None


def _parts_of(value: Any) -> Iterable[tuple[str, Any]]:
    """Return the name and the value of each part of a container. Keys are shown as `[*]`."""
    if isinstance(value, Mapping):
        return [("[*]", part) for part in value.values()]
    if isinstance(value, ELEMENTS):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, BaseModel):
        extra = value.__pydantic_extra__ or {}
        return [*value.__dict__.items(), *(("[*]", part) for part in extra.values())]
    if is_dataclass(value):
        return [(each.name, getattr(value, each.name, None)) for each in fields(value)]
    return []


def check_elements(check: Check) -> Check:
    """Return a function that checks each element of a list or set."""

    def find_in_elements(values: Any) -> Problem | None:
        if isinstance(values, Iterable) and not isinstance(values, str | bytes | Iterator):
            for index, value in enumerate(values):
                problem = check(value)
                if problem is not None:
                    return _inside(f"[{index}]", problem)
        return None

    return find_in_elements


def check_positions(checks: list[Check | None]) -> Check:
    """Return a function that checks the elements of a tuple, each with its own check."""

    def find_in_positions(values: Any) -> Problem | None:
        if isinstance(values, tuple):
            for index, (check, value) in enumerate(zip(checks, values, strict=False)):
                problem = None if check is None else check(value)
                if problem is not None:
                    return _inside(f"[{index}]", problem)
        return None

    return find_in_positions


def check_values(check: Check) -> Check:
    """Return a function that checks each value of a dictionary."""

    def find_in_values(values: Any) -> Problem | None:
        if isinstance(values, Mapping):
            for value in values.values():
                problem = check(value)
                if problem is not None:
                    return _inside("[*]", problem)
        return None

    return find_in_values


def check_fields(checks: dict[str, Check]) -> Check:
    """Return a function that checks the attributes of an object, by name."""
    items = tuple(checks.items())

    def find_in_fields(value: Any) -> Problem | None:
        for name, check in items:
            problem = check(getattr(value, name, None))
            if problem is not None:
                return _inside(name, problem)
        return None

    return find_in_fields


def check_keys(checks: dict[str, Check]) -> Check:
    """Return a function that checks the values of a typed dictionary, by key."""

    def find_in_keys(value: Any) -> Problem | None:
        if isinstance(value, Mapping):
            for name, check in checks.items():
                problem = check(value.get(name))
                if problem is not None:
                    return _inside(name, problem)
        return None

    return find_in_keys


def check_instance(cls: type, check: Check | None) -> Check:
    """Return a function that checks an object of a class.

    An object of a subclass is a problem if the subclass has more fields.
    """

    def find_in_instance(value: Any) -> Problem | None:
        actual = type(value)
        if actual is not cls:
            if not isinstance(value, cls):
                return None
            lost = _lost_field(actual, cls)
            if lost is not None:
                return "", _subclass_text(actual, cls, lost)
        return None if check is None else check(value)

    return find_in_instance


def check_branches(by_class: dict[type, Check | None], checks: list[Check]) -> Check:
    """Return a function that checks a value of a union.

    Args:
        by_class: Check of each branch that is a class. pydantic prefers the exact class.
        checks: Checks of all branches, for a value of another class.
    """

    def find_in_branches(value: Any) -> Problem | None:
        if type(value) in by_class:
            exact = by_class[type(value)]
            return None if exact is None else exact(value)
        for check in checks:
            problem = check(value)
            if problem is not None:
                return problem
        return None

    return find_in_branches


def _inside(name: str, problem: Problem) -> Problem:
    """Return a problem of a part as a problem of the whole."""
    path, text = problem
    if name == "__pydantic_extra__":  # its keys are names on the wire, not names of a class
        return path, text
    is_separate = path and not path.startswith("[")
    return f"{name}.{path}" if is_separate else f"{name}{path}", text


def _lost_field(actual: type, declared: type) -> str | None:
    """Return a field that only the subclass has, or None."""
    pair = actual, declared
    if pair not in _lost_fields:
        known = _field_names(declared)
        lost = [name for name in _field_names(actual) if name not in known]
        _lost_fields[pair] = lost[0] if lost else None
    return _lost_fields[pair]


def _field_names(cls: type) -> Sequence[str]:
    """Return the names of the fields that are sent."""
    if issubclass(cls, BaseModel):
        return [name for name, field in cls.model_fields.items() if not field.exclude]
    return [each.name for each in fields(cls)] if is_dataclass(cls) else []


def _subclass_text(actual: type, declared: type, lost: str) -> str:
    return (
        f"holds a {actual.__name__}, whose field `{lost}` would be lost, because the field has the "
        f"type {declared.__name__}. Declare SerializeAsAny[{declared.__name__}] to send the field, "
        f"or {declared.__name__} | {actual.__name__} to receive it, too"
    )
