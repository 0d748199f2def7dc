"""Checks of values: functions that find a value which pydantic encodes with a loss.

`bus.contracts.guards` composes them for a message class.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

from pydantic import BaseModel

from bus.contracts.iterators import HeldElements
from bus.contracts.problems import NOT_FINITE, NOT_FINITE_KEY, Problem, inside

__all__ = [
    "Check",
    "check_all",
    "check_branches",
    "check_elements",
    "check_fields",
    "check_instance",
    "check_keys",
    "check_number",
    "check_number_keys",
    "check_positions",
    "check_values",
]

Check: TypeAlias = Callable[[Any], Problem | None]
"""Function that returns the first problem of a value, or None."""

_lost_fields: dict[tuple[type, type], str | None] = {}
"""Field that a subclass adds to a class, by subclass and class."""


def check_number(value: Any) -> Problem | None:
    """Return a problem if a value is NaN or infinity."""
    if isinstance(value, float):
        return None if isfinite(value) else ("", NOT_FINITE)
    is_lost = isinstance(value, Decimal) and not value.is_finite()
    return ("", NOT_FINITE) if is_lost else None


def check_elements(check: Check) -> Check:
    """Return a function that checks each element of a list or set."""

    def find_in_elements(values: Any) -> Problem | None:
        if isinstance(values, HeldElements):
            values = values.items
        if isinstance(values, Iterable) and not isinstance(values, str | bytes | Iterator):
            for index, value in enumerate(values):
                problem = check(value)
                if problem is not None:
                    return inside(f"[{index}]", problem)
        return None

    return find_in_elements


def check_positions(checks: list[Check | None]) -> Check:
    """Return a function that checks the elements of a tuple, each with its own check."""

    def find_in_positions(values: Any) -> Problem | None:
        if isinstance(values, tuple):
            for index, (check, value) in enumerate(zip(checks, values, strict=False)):
                problem = None if check is None else check(value)
                if problem is not None:
                    return inside(f"[{index}]", problem)
        return None

    return find_in_positions


def check_values(check: Check) -> Check:
    """Return a function that checks each value of a dictionary."""

    def find_in_values(values: Any) -> Problem | None:
        if isinstance(values, Mapping):
            for value in values.values():
                problem = check(value)
                if problem is not None:
                    return inside("[*]", problem)
        return None

    return find_in_values


def check_number_keys(values: Any) -> Problem | None:
    """Return a problem if a key of a dictionary is NaN or infinity."""
    is_lost = isinstance(values, Mapping) and any(map(check_number, values))
    return ("", NOT_FINITE_KEY) if is_lost else None


def check_all(checks: Sequence[Check]) -> Check:
    """Return a function that calls several checks, and returns the first problem."""

    def find_first(value: Any) -> Problem | None:
        return next(filter(None, (check(value) for check in checks)), None)

    return checks[0] if len(checks) == 1 else find_first


def check_fields(checks: dict[str, Check]) -> Check:
    """Return a function that checks the attributes of an object, by name."""
    items = tuple(checks.items())

    def find_in_fields(value: Any) -> Problem | None:
        for name, check in items:
            problem = check(getattr(value, name, None))
            if problem is not None:
                return inside(name, problem)
        return None

    return find_in_fields


def check_keys(checks: dict[str, Check]) -> Check:
    """Return a function that checks the values of a typed dictionary, by key."""

    def find_in_keys(value: Any) -> Problem | None:
        if isinstance(value, Mapping):
            for name, check in checks.items():
                problem = check(value.get(name))
                if problem is not None:
                    return inside(name, problem)
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
        f"holds an object of {actual.__name__}, whose field `{lost}` would be lost, because the "
        f"field has the type {declared.__name__}. "
        f"Declare SerializeAsAny[{declared.__name__}] to send the field, "
        f"or {declared.__name__} | {actual.__name__} to receive it, too"
    )
