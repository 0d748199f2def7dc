"""Rules for the fields of an object: each field must be encoded under a name that is decoded."""

from collections.abc import Callable, Iterator
from typing import Any

from bus.contracts.core_schema import (
    CoreSchema,
    Definitions,
    accepted_names,
    encoded_name,
    fields_in,
)
from bus.contracts.round_trip import RoundTrip

__all__ = ["Loss", "losses_in", "serialized_fields"]

SIMPLE = frozenset({"type", "schema", "metadata", "required", "frozen"})
"""Attributes of a field that is sent and received under its own name."""
EMPTY: tuple[Any, ...] = (None, "", 0, False, [], {})
"""Empty values in JSON."""
Loss = tuple[str, str]
"""Name of a field, and a text with the loss and the remedy."""


def losses_in(schema: CoreSchema, config: CoreSchema, definitions: Definitions) -> Iterator[Loss]:
    """Yield the fields of an object that a receiver does not get as they were sent.

    Args:
        schema: Core schema with fields: of a model, a dataclass or a typed dictionary.
        config: Configuration of the class.
        definitions: Schemas to which `schema` refers, by name.
    """
    fields = list(fields_in(schema))
    if not _computed(schema) and all(SIMPLE.issuperset(field) for _, field in fields):
        return
    for name, field in fields:
        excluded = _exclusion(field, definitions, config)
        if excluded is not None:
            yield name, excluded
    yield from _shared_names(schema)
    yield from _refused_extras(schema, config)
    encoded = {encoded_name(name, field) for name, field in fields}
    encoded |= {each.get("alias", each["property_name"]) for each in _computed(schema)}
    for name, field in fields:
        if field.get("init_only", False) or not field.get("init", True):
            continue
        accepted = accepted_names(name, field, config)
        written = encoded_name(name, field)
        # A receiver takes the first accepted name that is present.
        if next((each for each in accepted if each in encoded), None) != written:
            yield name, _alias_text(name, written, accepted)


def serialized_fields(schema: CoreSchema) -> list[str]:
    """Return the names of the fields that a method of the class encodes (`field_serializer`)."""
    return [name for name, field in fields_in(schema) if _has_field_serializer(field["schema"])]


def _exclusion(field: CoreSchema, definitions: Definitions, config: CoreSchema) -> str | None:
    if field.get("serialization_exclude", False):
        return (
            "is not sent, because of exclude=True, so receivers get its default or nothing. "
            "Remove exclude=True, or write a PrivateAttr."
        )
    schema, is_excluded = field["schema"], field.get("serialization_exclude_if")
    if is_excluded is not None:
        trip = RoundTrip(schema, definitions, config)
        if not _excludes_only_default(schema, is_excluded, trip):
            return (
                "is not sent if exclude_if is true, and receivers then do not get the same value. "
                "Remove exclude_if, or let it be true only for the default."
            )
    if field.get("init_only", False) and schema["type"] != "default":
        return "is an InitVar, which is never sent, but receivers require it. Write a field."
    return None


def _excludes_only_default(
    schema: CoreSchema, is_excluded: Callable[[Any], bool], trip: RoundTrip
) -> bool:
    """Return True if each excluded value can be the default, which receivers then use.

    A condition such as `not value` is often true for several values, so empty values are tried.
    """
    if schema["type"] != "default":
        return False
    try:
        default = schema["default"] if "default" in schema else schema["default_factory"]()
        is_default_excluded = bool(is_excluded(default))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a user's function can raise any error
        return True
    values = [*trip.sample_values(), *(each for empty in EMPTY for each in trip.decode(empty))]
    others = [value for value in values if value != default]
    return is_default_excluded and not any(_is_true(is_excluded, value) for value in others)


def _is_true(function: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(function(value))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a user's function can raise any error
        return False


def _computed(schema: CoreSchema) -> list[CoreSchema]:
    computed: list[CoreSchema] = schema.get("computed_fields", [])
    return computed


def _shared_names(schema: CoreSchema) -> Iterator[Loss]:
    owners: dict[str, str] = {}
    for name, field in fields_in(schema):
        owner = owners.setdefault(encoded_name(name, field), name)
        if owner != name:
            yield name, f"is sent under the same name as the field `{owner}`. Write another alias."
    for each in _computed(schema):
        name = each["property_name"]
        if each.get("alias", name) in owners:
            owner = owners[each.get("alias", name)]
            text = f"is a computed field with the name of the field `{owner}`. Write another alias."
            yield name, text


def _refused_extras(schema: CoreSchema, config: CoreSchema) -> Iterator[Loss]:
    behavior = schema.get("extra_behavior") or config.get("extra_fields_behavior")
    if behavior != "forbid":
        return
    text = 'is sent, but receivers refuse it because of extra="forbid". Remove extra="forbid", or'
    for each in _computed(schema):
        yield each["property_name"], f"is a computed field. It {text} write a plain property."
    for name, field in fields_in(schema):
        if not field.get("init", True):
            yield name, f"{text} init=False."


def _alias_text(name: str, written: str, accepted: list[str]) -> str:
    if not accepted:
        return (
            f"is sent under the name `{written}`, but receivers read it from a path in other "
            f'values. Write alias="{written}" instead of the AliasPath.'
        )
    if len(accepted) > 1:
        option = f'serialization_alias="{accepted[0]}"'
    else:
        option = f'alias="{written if written != name else accepted[0]}", which sets both names'
    return (
        f"is sent under the name `{written}`, but receivers read it from "
        f"{', '.join(f'`{each}`' for each in accepted)}. Write {option}."
    )


def _has_field_serializer(schema: CoreSchema) -> bool:
    while True:
        if schema.get("serialization", {}).get("is_field_serializer", False):
            return True
        if schema["type"] not in {"default", "nullable"}:
            return False
        schema = schema["schema"]
