"""Rules for the keys of dictionaries, which JSON writes as text."""

from typing import Any

from bus.contracts.core_schema import CoreSchema, Definitions, choices_of, resolve
from bus.contracts.round_trip import RoundTrip

__all__ = ["is_safe_key", "sample_keys"]

SAFE_KEYS = frozenset(
    {"str", "int", "float", "bool", "decimal", "date", "time", "datetime", "uuid", "url", "any"}
)
"""Kinds of keys that a receiver decodes from text. A key of any type is sent at its own risk."""


def is_safe_key(key: CoreSchema, definitions: Definitions) -> bool:
    """Return True if each key of the type is known to survive as text."""
    key = resolve(key, definitions)
    if key["type"] == "enum":
        return all(isinstance(each.value, str) for each in key["members"])
    if key["type"] == "literal":
        return all(type(each) is str for each in key["expected"])
    return key["type"] in SAFE_KEYS and "serialization" not in key


def sample_keys(key: CoreSchema, definitions: Definitions, config: CoreSchema) -> list[Any]:
    """Return keys of the type, at least one for each branch of a union that has samples."""
    key = resolve(key, definitions)
    if key["type"] == "nullable":
        return [None, *sample_keys(key["schema"], definitions, config)]
    if key["type"] == "union":
        branches = choices_of(key)
        return [each for branch in branches for each in sample_keys(branch, definitions, config)]
    if key["type"] in {"enum", "literal"}:
        return list(key.get("members") or key["expected"])
    samples = RoundTrip(key, definitions, config).sample_values()
    return [each for each in samples if _is_hashable(each)]


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
