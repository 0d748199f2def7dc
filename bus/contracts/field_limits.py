"""Descriptions of the limits that the JSON schema of a field declares, such as `1 to 50 items`."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

__all__ = ["describe_limits", "is_marked_sensitive"]

Schema: TypeAlias = Mapping[str, Any]

COUNTS = {
    "character": ("minLength", "maxLength"),
    "item": ("minItems", "maxItems"),
    "entry": ("minProperties", "maxProperties"),
}
"""Keywords of JSON schema for the smallest and the largest number of things of a kind."""
PLURALS = {"character": "characters", "item": "items", "entry": "entries"}


def describe_limits(schema: Schema) -> str:
    """Return the limits of a field, such as `1 to 50 characters`. Return "" if it has none.

    If a value can have several types, the limits of each type follow the name of the type.

    Args:
        schema: JSON schema of the field. The limits of a class that it refers to are left out.
    """
    return ", ".join(dict.fromkeys(_limits(schema)))


def is_marked_sensitive(schema: Schema) -> bool:
    """Return True if the type of a field is `Sensitive` or contains `Sensitive`."""
    return bool(schema.get("x-sensitive")) or any(map(is_marked_sensitive, _parts(schema)))


def _limits(schema: Schema) -> Iterator[str]:
    if branches := _branches(schema):
        yield from _limits_of_branches([each for each in branches if each.get("type") != "null"])
        return
    for thing, (least, most) in COUNTS.items():
        yield from _count(thing, schema.get(least), schema.get(most))
    yield from _bounds(schema)
    if "multipleOf" in schema:
        yield f"multiple of {_number(schema['multipleOf'])}"
    if "pattern" in schema:
        yield f"pattern {schema['pattern']}"
    if schema.get("uniqueItems"):
        yield "each item once"
    for name, keyword in (("item", "items"), ("value", "additionalProperties")):
        part = schema.get(keyword)
        if isinstance(part, Mapping) and (limits := describe_limits(part)):
            yield f"each {name}: {limits}"


def _limits_of_branches(branches: list[Schema]) -> Iterator[str]:
    if len(branches) == 1:
        yield from _limits(branches[0])
        return
    for branch in branches:
        # A number can be written as a string. The pattern of that string is pydantic's own.
        own = {key: value for key, value in branch.items() if key != "pattern"}
        kind = branch.get("format") or branch.get("type")
        if limits := describe_limits(own):
            yield f"{kind}: {limits}" if kind else limits


def _count(thing: str, least: int | None, most: int | None) -> Iterator[str]:
    least = least or None  # a length is always at least 0
    if least is None and most is None:
        return
    if most is None:
        count = f"at least {least}"
    elif least is None:
        count = f"at most {most}"
    else:
        count = f"{least}" if least == most else f"{least} to {most}"
    last = least if most is None else most
    yield f"{count} {thing if last == 1 else PLURALS[thing]}"


def _bounds(schema: Schema) -> Iterator[str]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        yield f"{_number(least)} to {_number(most)}"
    elif least is not None:
        yield f"at least {_number(least)}"
    elif most is not None:
        yield f"at most {_number(most)}"
    if "exclusiveMinimum" in schema:
        yield f"greater than {_number(schema['exclusiveMinimum'])}"
    if "exclusiveMaximum" in schema:
        yield f"less than {_number(schema['exclusiveMaximum'])}"


def _number(value: float) -> str:
    """Return the number without a fraction of zero, as the contract's author wrote it."""
    whole = int(value)
    return str(whole if whole == value else value)


def _branches(schema: Schema) -> list[Schema]:
    return [*(schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or ())]


def _parts(schema: Schema) -> Iterator[Schema]:
    yield from _branches(schema)
    yield from schema.get("prefixItems", ())
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(keyword), Mapping):
            yield schema[keyword]
