"""Rules for parts whose form in JSON can be ambiguous: branches of unions, and keys."""

from itertools import combinations
from math import isfinite
from pathlib import Path, PurePath
from typing import Any

from bus.contracts.core_schema import CoreSchema, Definitions, choices_of, resolve
from bus.contracts.round_trip import RoundTrip, is_hashable
from bus.contracts.samples import json_kinds

__all__ = ["is_scalar", "lost_branch", "lost_by_settings", "lost_key"]

TEMPORAL_OPTIONS = ("ser_json_temporal", "ser_json_timedelta", "val_temporal_unit")

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
    trips = [RoundTrip(branch, definitions, config) for branch in branches]
    is_ordered = union.get("mode") == "left_to_right"
    texts = [] if is_ordered else [text for own in trips for text in own.encoded_texts()]
    for branch, own in zip(branches, trips, strict=True):
        samples = own.sample_values()
        # A text in the form of another branch can arrive as that branch, such as a date.
        alike = [value for text in texts for value in own.decode(text) if _is_text(value, text)]
        if trip.loses_all(samples) or any(map(trip.loses, alike)):
            # The schema's own name of a type, such as `lax-or-strict`, does not help its author.
            cls: type = resolve(branch, definitions).get("cls", type((samples or alike)[0]))
            public = (base for base in (Path, PurePath) if issubclass(cls, base))
            return next(public, cls).__name__  # a `Path` is a `PosixPath` or `WindowsPath`
    return None


def _is_text(value: object, written: str | list[Any]) -> bool:
    """Return True for a text, for bytes that are sent as the same text, and for a list of these.

    Args:
        value: Decoded value.
        written: JSON value from which `value` was decoded.
    """
    elements = value if isinstance(value, list) else [value]
    texts = written if isinstance(written, list) else [written]
    return all(
        type(each) is str or (type(each) is bytes and each.decode(errors="replace") in texts)
        for each in elements
    )


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
    return [each for each in samples if is_hashable(each)]


def lost_by_settings(schema: CoreSchema, config: CoreSchema) -> str | None:
    """Return a text if a date, time or duration is lost because of settings of its class.

    Args:
        schema: Schema of the type.
        config: Configuration of the class that contains the type.
    """
    options = [option for option in TEMPORAL_OPTIONS if option in config]
    if not options:
        return None
    trip = RoundTrip(schema, {}, config)
    # All samples must arrive: a number of seconds is right only with a time zone.
    if not any(map(trip.loses, trip.sample_values())):
        return None
    shown = ", ".join(f'{option}="{config[option]}"' for option in options)
    return (
        f"does not arrive as it was sent, because of {shown} in the configuration. Remove the "
        f"setting, or write AwareDatetime if the field is a datetime and the setting is "
        f'ser_json_temporal="seconds".'
    )


def is_scalar(value: object) -> bool:
    """Return True if a member of an Enum or Literal is a text, a number or None in JSON."""
    is_finite = not isinstance(value, float) or isfinite(value)
    return isinstance(value, str | int | float | None) and is_finite
