"""Check of a value of any type, which pydantic encodes by the class of the value.

Text survives as it is. Some classes arrive as text on purpose, such as dates and numbers in keys.
The check refuses the values from which a receiver cannot even get that text.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from importlib import import_module
from math import isfinite
from typing import Any

from pydantic import Secret, SecretBytes, SecretStr
from pydantic_core import from_json, to_json

from bus.contracts.problems import NOT_FINITE, NOT_FINITE_KEY, Problem, inside

__all__ = ["check_any", "check_any_keys", "check_secret"]

QUICK = frozenset({str, int, bool, bytes, type(None)})
"""Classes whose values have no problem."""
TEXT = frozenset({str})
ELEMENTS = (list, tuple, set, frozenset, deque)
SECRETS = (SecretStr, SecretBytes, Secret)
HIDDEN = (
    "is a secret of pydantic, which is sent as asterisks. Declare the type Sensitive[…], or send "
    "the value of get_secret_value()"
)
TUPLE_KEY = "has a tuple as a key, which arrives as one text. Write a list of pairs"
HIDDEN_KEY = "has a secret as a key, which is sent as asterisks. Write a text as the key"
SAME_KEYS = (
    "has keys that are the same text in JSON, such as 1 and '1', so an entry would be lost. "
    "Write keys that are texts"
)


def check_any(value: Any) -> Problem | None:
    """Return the first problem in a value of any type."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                problem = check_any_keys(value)
                if problem is not None:
                    return problem
                break
        parts = value.values()
    elif kind is list:
        parts = value
    elif kind in QUICK:
        return None
    else:
        return _check_other(value)
    for index, part in enumerate(parts):
        part_kind = type(part)
        # This function is called for each message with such a field, so it calls itself seldom.
        if part_kind in QUICK or (part_kind is float and isfinite(part)):
            continue
        problem = check_any(part)
        if problem is not None:
            return inside("[*]" if kind is dict else f"[{index}]", problem)
    return None


def _check_other(value: Any) -> Problem | None:
    if isinstance(value, float | Decimal):
        return None if isfinite(value) else ("", NOT_FINITE)
    if isinstance(value, SECRETS):
        return "", HIDDEN
    if isinstance(value, Mapping):
        return check_any(dict(value))
    if "__pydantic_core_schema__" in vars(type(value)):
        # pydantic encodes the object by the types of its fields, as in a field of its class.
        problem: Problem | None = import_module("bus.contracts.guards").check_object(value)
        return problem
    for name, part in _parts_of(value):
        problem = check_any(part)
        if problem is not None:
            return inside(name, problem)
    return None


def _parts_of(value: Any) -> Iterable[tuple[str, Any]]:
    """Return the name and the value of each part."""
    if isinstance(value, ELEMENTS):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if is_dataclass(value):
        return [(each.name, getattr(value, each.name, None)) for each in fields(value)]
    return []


def check_secret(value: Any) -> Problem | None:
    """Return a problem if a value is a secret of pydantic."""
    return ("", HIDDEN) if isinstance(value, SECRETS) else None


def check_any_keys(values: Any) -> Problem | None:
    """Return a problem if a dictionary has keys that a receiver cannot tell apart or read."""
    if not isinstance(values, Mapping) or TEXT.issuperset(map(type, values)):
        return None
    return _check_keys([*values])


def _check_keys(keys: list[Any]) -> Problem | None:
    for key in keys:
        if isinstance(key, tuple):
            return "", TUPLE_KEY
        if isinstance(key, float | Decimal) and _check_other(key) is not None:
            return "", NOT_FINITE_KEY
        if isinstance(key, SECRETS):
            return "", HIDDEN_KEY
    # pydantic writes the keys of each class in its own form, so only its encoding can tell.
    has_lost_entry = len(from_json(to_json(dict.fromkeys(keys)))) < len(keys)
    return ("", SAME_KEYS) if has_lost_entry else None
