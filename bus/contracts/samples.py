"""Samples: JSON values that a core schema accepts.

`bus.contracts.round_trip` encodes and decodes them when a contract is declared. The samples in
`bus.contracts.schema` are for people, and are derived from the JSON schema, which takes longer.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from bus.contracts.core_schema import (
    DICTIONARIES,
    FUNCTIONS,
    SEQUENCES,
    CoreSchema,
    Definitions,
    accepted_names,
    choices_of,
    fields_in,
    forms_of,
    resolve,
)

__all__ = [
    "AWARE_TIME",
    "NoSampleError",
    "json_kinds",
    "sample_json",
    "sample_number",
    "sample_object",
]

MAX_DEPTH = 12
"""Maximum nesting depth of a sample. A recursive type has no sample if it needs more."""
AWARE_TIME = "09:30:00Z"
"""Time with a time zone, in each sample of a time."""
NUMBERS = frozenset({"int", "float", "decimal", "fraction"})
SCALARS: dict[str, Any] = {
    "none": None,
    "bool": True,
    "any": "aaaa",
    "bytes": "aaaa",  # valid in UTF-8, in base64 and in hexadecimal digits
    "date": "2027-01-02",
    "time": AWARE_TIME,
    "datetime": f"2027-01-02T{AWARE_TIME}",
    "timedelta": "PT90S",
    "uuid": "8c7d1b2e-5f70-4c1d-9c1e-0a1b2c3d4e5f",
    "url": "https://example.org/a",
    "complex": "1+2j",
}
KINDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(SCALARS, frozenset({"string"})),
    **dict.fromkeys(("str", "decimal", "fraction", "multi-host-url"), frozenset({"string"})),
    **dict.fromkeys(("model-fields", "dataclass-args", "typed-dict"), frozenset({"object"})),
    **dict.fromkeys(DICTIONARIES, frozenset({"object"})),
    **dict.fromkeys((*SEQUENCES, "tuple", "named-tuple", "arguments"), frozenset({"array"})),
    "int": frozenset({"int"}),
    "float": frozenset({"float"}),
    "bool": frozenset({"bool"}),
    "none": frozenset({"null"}),
    "any": frozenset(),
}
"""Kinds of JSON values by type; the set is empty if the kind is unknown.

An `int` and a `float` are different kinds, because pydantic encodes 1.0 with its decimal point.
"""


class NoSampleError(LookupError):
    """Error for a schema from which a sample cannot be derived."""


def sample_json(schema: CoreSchema, definitions: Definitions, depth: int = MAX_DEPTH) -> Any:
    """Return a JSON value that the schema accepts.

    A validator that the schema calls can still reject the value. A field that has a default is left
    out.

    Raises:
        NoSampleError: The schema does not describe the accepted values well enough.
    """
    schema = resolve(schema, definitions)
    if depth <= 0:
        raise NoSampleError
    kind = schema["type"]
    if kind in SCALARS:
        return SCALARS[kind]
    if kind in NUMBERS:
        return sample_number(_bounds_of(schema))
    if kind in SEQUENCES:
        count = max(1, schema.get("min_length", 1))
        return [
            sample_json(schema.get("items_schema", {"type": "any"}), definitions, depth - 1)
        ] * count
    sampler = SAMPLERS.get(kind)
    if sampler is not None:
        return sampler(schema, definitions, depth)
    inner = [] if kind == "function-plain" else forms_of(schema)
    if not inner:
        raise NoSampleError
    return sample_json(inner[0], definitions, depth - 1)


def _bounds_of(schema: CoreSchema) -> dict[str, Any]:
    names = {
        "gt": "exclusiveMinimum",
        "ge": "minimum",
        "lt": "exclusiveMaximum",
        "le": "maximum",
        "multiple_of": "multipleOf",
    }
    bounds = {names[key]: schema[key] for key in names if key in schema}
    convert = int if schema["type"] == "int" else float
    # 1 tells more than 0, which equals False and is often a default.
    return {key: convert(value) for key, value in bounds.items()} or {"minimum": 1}


def _sample_text(schema: CoreSchema, _definitions: Definitions, _depth: int) -> str:
    if "pattern" in schema:
        raise NoSampleError
    length: int = max(4, schema.get("min_length", 0))
    return "a" * min(length, int(schema.get("max_length", length)))


def _sample_literal(schema: CoreSchema, _definitions: Definitions, _depth: int) -> Any:
    return _plain(schema["expected"][0])


def _sample_enum(schema: CoreSchema, _definitions: Definitions, _depth: int) -> Any:
    return _plain(schema["members"][0])


def _sample_tuple(schema: CoreSchema, definitions: Definitions, depth: int) -> list[Any]:
    return [sample_json(each, definitions, depth - 1) for each in forms_of(schema)]


def _sample_dictionary(schema: CoreSchema, definitions: Definitions, depth: int) -> dict[str, Any]:
    key = sample_json(schema.get("keys_schema", {"type": "str"}), definitions, depth - 1)
    value = sample_json(schema.get("values_schema", {"type": "any"}), definitions, depth - 1)
    if not isinstance(key, str | int | float):
        raise NoSampleError
    return {str(key): value}


def _sample_object(schema: CoreSchema, definitions: Definitions, depth: int) -> dict[str, Any]:
    return sample_object(schema, {}, definitions, depth)


def sample_object(
    schema: CoreSchema,
    config: CoreSchema,
    definitions: Definitions,
    depth: int = MAX_DEPTH,
    *,
    with_fields: Iterable[str] = (),
) -> dict[str, Any]:
    """Return a JSON object with the required fields of a schema that has fields.

    Args:
        schema: Schema with fields.
        config: Configuration of the class.
        definitions: Schemas to which `schema` refers, by name.
        depth: Maximum nesting depth.
        with_fields: Fields to include although they have a default.

    Raises:
        NoSampleError: A field has no sample.
    """
    sample = {}
    for name, field in fields_in(schema):
        inner = field["schema"]
        is_required = inner["type"] != "default" and field.get("required", True)
        if name in with_fields or (is_required and field.get("init", True)):
            names = accepted_names(name, field, config)
            if not names:
                raise NoSampleError
            value = sample_json(inner, definitions, depth - 1)
            sample[names[0]] = _other_than_default(value, inner, definitions)
    return sample


def _other_than_default(value: Any, field: CoreSchema, definitions: Definitions) -> Any:
    """Return another JSON value than the default of a field, if the type makes it easy."""
    default, inner = _plain(field.get("default")), resolve(field.get("schema", field), definitions)
    if type(default) is not type(value) or default != value:
        return value
    if inner["type"] == "bool":
        return not value
    if inner["type"] in {"int", "float"} and _bounds_of(inner).keys() <= {"minimum"}:
        return value + 1
    if inner["type"] == "str":
        return value[:-1] + "b"
    choices = map(_plain, inner.get("members") or inner.get("expected") or ())
    return next((choice for choice in choices if choice != default), value)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _sample_container(schema: CoreSchema, definitions: Definitions, depth: int) -> Any:
    inner, config = resolve(schema["schema"], definitions), schema.get("config", {})
    if inner["type"] in {"model-fields", "dataclass-args"}:
        return sample_object(inner, config, definitions, depth)
    return sample_json(inner, definitions, depth - 1)


def _sample_union(schema: CoreSchema, definitions: Definitions, depth: int) -> Any:
    for branch in choices_of(schema):
        try:
            return sample_json(branch, definitions, depth - 1)
        except NoSampleError:
            continue
    raise NoSampleError


SAMPLERS: dict[str, Callable[[CoreSchema, Definitions, int], Any]] = {
    "str": _sample_text,
    "literal": _sample_literal,
    "enum": _sample_enum,
    "tuple": _sample_tuple,
    "named-tuple": _sample_tuple,
    "arguments": _sample_tuple,
    **dict.fromkeys(DICTIONARIES, _sample_dictionary),
    **dict.fromkeys(("model-fields", "dataclass-args", "typed-dict"), _sample_object),
    "model": _sample_container,
    "dataclass": _sample_container,
    "union": _sample_union,
    "tagged-union": _sample_union,
}


def json_kinds(
    schema: CoreSchema, definitions: Definitions, depth: int = MAX_DEPTH
) -> frozenset[str]:
    """Return the kinds of JSON values that a schema is encoded as, or an empty set if unknown."""
    schema = resolve(schema, definitions)
    kind = schema["type"]
    if kind in KINDS:
        return KINDS[kind]
    if depth <= 0 or "serialization" in schema or kind in FUNCTIONS - {"function-after"}:
        return frozenset()
    if kind in {"literal", "enum"}:
        values = schema["expected"] if kind == "literal" else schema["members"]
        return frozenset().union(*(_kind_of(value) for value in values))
    inner = [json_kinds(each, definitions, depth - 1) for each in forms_of(schema)]
    if not inner or not all(inner):
        return frozenset()
    return frozenset().union(*inner, {"null"} if kind == "nullable" else ())


def _kind_of(value: object) -> frozenset[str]:
    value = _plain(value)
    kinds = {bool: "bool", int: "int", float: "float", str: "string", type(None): "null"}
    return frozenset({kinds.get(type(value), "other")})


def sample_number(schema: Mapping[str, Any]) -> float:
    """Return the smallest number that a JSON schema permits.

    If the schema has no minimum, return the largest permitted number. If the schema has no minimum
    and no maximum, return 0. If the minimum is exclusive, return the next integer or multiple above
    the minimum. If that number is above the maximum, return the middle of the range.
    """
    step: float = schema.get("multipleOf", 1)
    above: float | None = schema.get("exclusiveMinimum")
    below: float | None = schema.get("exclusiveMaximum")
    if above is not None:
        lowest = (math.floor(above / step) + 1) * step
        limit = below if below is not None else schema.get("maximum", math.inf)
        return lowest if lowest < limit else (above + limit) / 2
    bound: float = schema.get(
        "minimum", schema.get("maximum", 0 if below is None else below - step)
    )
    return (
        bound if bound % step == 0 or "multipleOf" not in schema else math.ceil(bound / step) * step
    )
