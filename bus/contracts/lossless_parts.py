"""Rules for parts whose form in JSON can be ambiguous: branches of unions, and keys."""

from itertools import combinations
from typing import Any

from bus.contracts.core_schema import CoreSchema, Definitions, choices_of, resolve
from bus.contracts.round_trip import RoundTrip
from bus.contracts.samples import json_kinds

__all__ = ["lost_branch", "lost_key"]

SAFE_KEYS = frozenset(
    {"str", "int", "float", "bool", "decimal", "date", "time", "datetime", "uuid", "url", "any"}
)
"""Kinds of keys that a receiver decodes from text. A key of any type is sent at its own risk."""


def lost_branch(union: CoreSchema, definitions: Definitions, config: CoreSchema) -> str | None:
    """Return the name of a branch whose values arrive as another branch, or None.

    Args:
        union: Schema of a union without a discriminator.
        definitions: Schemas to which `union` refers, by name.
        config: Configuration of the class that contains the type.
    """
    branches = choices_of(union)
    kinds = [json_kinds(branch, definitions) for branch in branches]
    if all(one and other and not one & other for one, other in combinations(kinds, 2)):
        return None
    trip = RoundTrip(union, definitions, config)
    for branch in branches:
        samples = RoundTrip(branch, definitions, config).sample_values()
        if trip.loses_all(samples):
            # The schema's own name of a type, such as `lax-or-strict`, does not help its author.
            cls = resolve(branch, definitions).get("cls", type(samples[0]))
            name: str = cls.__name__
            return name
    return None


def lost_key(dictionary: CoreSchema, definitions: Definitions, config: CoreSchema) -> str | None:
    """Return the type of a key that does not survive as text, or None.

    Args:
        dictionary: Schema of a dictionary.
        definitions: Schemas to which `dictionary` refers, by name.
        config: Configuration of the class that contains the type.
    """
    key = dictionary.get("keys_schema", {"type": "any"})
    if _is_safe_key(key, definitions):
        return None
    whole = {"type": "dict", "keys_schema": key, "values_schema": {"type": "any"}}
    trip = RoundTrip(whole, definitions, config)
    lost = (each for each in _sample_keys(key, definitions, config) if trip.loses({each: 1}))
    return next((type(each).__name__ for each in lost), None)


def _is_safe_key(key: CoreSchema, definitions: Definitions) -> bool:
    """Return True if each key of the type is known to survive as text."""
    key = resolve(key, definitions)
    if key["type"] == "enum":
        return all(isinstance(each.value, str) for each in key["members"])
    if key["type"] == "literal":
        return all(type(each) is str for each in key["expected"])
    return key["type"] in SAFE_KEYS and "serialization" not in key


def _sample_keys(key: CoreSchema, definitions: Definitions, config: CoreSchema) -> list[Any]:
    """Return keys of the type, at least one for each branch of a union that has samples."""
    key = resolve(key, definitions)
    if key["type"] == "nullable":
        return [None, *_sample_keys(key["schema"], definitions, config)]
    if key["type"] == "union":
        branches = choices_of(key)
        return [each for branch in branches for each in _sample_keys(branch, definitions, config)]
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
