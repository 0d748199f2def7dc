"""Core schemas: pydantic's compiled description of a type, as nested dictionaries.

The functions ignore kinds of schemas that they do not know, because new versions of pydantic add
kinds. Source: https://docs.pydantic.dev/latest/internals/architecture/
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from pydantic import BaseModel

__all__ = [
    "DICTIONARIES",
    "FUNCTIONS",
    "OBJECTS",
    "SEQUENCES",
    "CoreSchema",
    "Definitions",
    "accepted_names",
    "choices_of",
    "definitions_of",
    "encoded_name",
    "fields_in",
    "forms_of",
    "is_from_pydantic",
    "resolve",
]

CoreSchema: TypeAlias = Mapping[str, Any]
Definitions: TypeAlias = Mapping[str, CoreSchema]

SEQUENCES = frozenset({"list", "set", "frozenset", "deque", "generator"})
"""Kinds of schemas that have the schema of their elements in `items_schema`."""
DICTIONARIES = frozenset({"dict", "frozendict", "ordered-dict", "counter"})
"""Kinds of schemas that have `keys_schema` and `values_schema`."""
OBJECTS = frozenset({"model-fields", "dataclass-args", "typed-dict"})
"""Kinds of schemas that have fields."""
FUNCTIONS = frozenset({"function-before", "function-after", "function-wrap", "function-plain"})
"""Kinds of schemas that call a function to validate a value."""
WRAPPERS = {
    "definitions": "schema",
    "default": "schema",
    "custom-error": "schema",
    "json-or-python": "json_schema",
    "lax-or-strict": "lax_schema",
    "model": "schema",
    "dataclass": "schema",
    "call": "arguments_schema",
    "nullable": "schema",
    "function-before": "schema",
    "function-after": "schema",
    "function-wrap": "schema",
}
"""Key of the schema that a schema of each kind contains, when it validates JSON."""


def definitions_of(model: type[BaseModel]) -> tuple[CoreSchema, Definitions]:
    """Return the core schema of a complete model, and the schemas to which it refers, by name."""
    schema: CoreSchema = model.__pydantic_core_schema__
    definitions = schema.get("definitions", ()) if schema["type"] == "definitions" else ()
    return schema, {each["ref"]: each for each in definitions}


def resolve(schema: CoreSchema, definitions: Definitions) -> CoreSchema:
    """Return the schema to which a reference refers. Return another schema unchanged."""
    while schema["type"] == "definition-ref" and schema["schema_ref"] in definitions:
        schema = definitions[schema["schema_ref"]]
    return schema


def choices_of(schema: CoreSchema) -> list[CoreSchema]:
    """Return the schemas of a union's branches."""
    choices = schema["choices"]
    branches = choices.values() if isinstance(choices, Mapping) else choices
    return [each[0] if isinstance(each, tuple) else each for each in branches]


def fields_in(schema: CoreSchema) -> Iterator[tuple[str, CoreSchema]]:
    """Yield the name and the field of each field in a schema with fields."""
    fields = schema["fields"]
    if isinstance(fields, Mapping):
        yield from fields.items()
    else:
        yield from ((field["name"], field) for field in fields)


def encoded_name(name: str, field: CoreSchema) -> str:
    """Return the name of a field in JSON."""
    alias: str = field.get("serialization_alias") or name
    return alias


def accepted_names(name: str, field: CoreSchema, config: CoreSchema) -> list[str]:
    """Return the names in JSON under which a receiver accepts a field, in the order of its search.

    A path into nested values is left out, because no field is encoded as a path.
    """
    alias = field.get("validation_alias")
    paths = [[alias]] if isinstance(alias, str) else alias or []
    if paths and not isinstance(paths[0], list):
        paths = [paths]
    by_alias = config.get("validate_by_alias", True)
    names = [path[0] for path in paths if len(path) == 1 and by_alias]
    if alias is None or config.get("validate_by_name", False):
        names.append(name)
    return names


def forms_of(schema: CoreSchema) -> list[CoreSchema]:
    """Return the schemas that a schema contains directly, except the fields of a model."""
    kind = schema["type"]
    if kind in WRAPPERS:
        inner = schema.get(WRAPPERS[kind])
        return [] if inner is None else [inner]
    if kind in SEQUENCES:
        return [schema["items_schema"]] if "items_schema" in schema else []
    if kind in DICTIONARIES:
        return [schema[key] for key in ("keys_schema", "values_schema") if key in schema]
    if kind in {"union", "tagged-union"}:
        return choices_of(schema)
    inside: dict[str, list[CoreSchema]] = {
        "tuple": schema.get("items_schema", []),
        "chain": schema.get("steps", []),
        "arguments": [each["schema"] for each in schema.get("arguments_schema", ())],
        "named-tuple": [each["schema"] for each in schema.get("fields", ())],
    }
    return inside.get(kind, [])


def is_from_pydantic(function: object) -> bool:
    """Return True if pydantic itself chose a validator or serializer, and not a user."""
    inner = function.get("function") if isinstance(function, Mapping) else function
    inner = inner.func if isinstance(inner, partial) else inner
    module = getattr(inner, "__module__", None) or type(inner).__module__
    return str(module).partition(".")[0] in {"pydantic", "operator", "ipaddress"}
