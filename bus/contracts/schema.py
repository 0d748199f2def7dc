"""Schema of a message: its fields, its JSON schema, and a sample to fill in."""

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from bus.contracts.field_limits import describe_limits, is_marked_sensitive
from bus.contracts.samples import sample_number

__all__ = ["Field", "fields_of", "sample_of", "schema_of"]

Schema: TypeAlias = Mapping[str, Any]

STRINGS = {
    "uuid": "00000000-0000-4000-8000-000000000000",
    "date-time": "2027-01-01T09:00:00Z",
    "date": "2027-01-01",
    "time": "09:00:00Z",
    "duration": "PT1S",
    "email": "somebody@example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "binary": "",
}
"""Sample values by JSON schema format. The addresses are reserved for documentation."""
LIBRARIES = {"pydantic", "bus", "typing", "builtins"}
"""Packages whose classes have no message fields. The search for field docstrings skips them."""
MAX_SAMPLE_DEPTH = 8
"""Maximum nesting depth of a sample.

Without this limit, the sample of a recursive model never ends.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Field of a message. `name` is the name on the wire."""

    name: str
    type: str
    required: bool
    limits: str
    """Limits of the value, such as `1 to 50 characters`. It is empty if there are none."""
    sensitive: bool
    """True if the type is `Sensitive` or contains `Sensitive`."""
    description: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the field as a JSON object, for `--json`."""
        return asdict(self)


def fields_of(model: type[BaseModel]) -> list[Field]:
    """Return the fields of a model, in the order of their declaration."""
    schema, docstrings = schema_of(model) or {}, field_docstrings(model)
    required, definitions = schema.get("required", []), schema.get("$defs", {})
    return [
        Field(
            name=name,
            type=describe(part, definitions),
            required=name in required,
            limits=describe_limits(part),
            sensitive=is_marked_sensitive(part),
            description=part.get("description") or docstrings.get(name),
        )
        for name, part in schema.get("properties", {}).items()
    ]


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return a mapping from each field's name on the wire to its docstring.

    If the source code of a class is not available, the docstrings of that class are left out.
    """
    texts: dict[str, str] = {}
    for base in reversed(
        [base for base in model.__mro__ if base.__module__.partition(".")[0] not in LIBRARIES]
    ):
        with contextlib.suppress(OSError, TypeError, SyntaxError):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            texts |= attribute_docstrings(body.body) if isinstance(body, ast.ClassDef) else {}
    return {
        (model.model_fields[name].alias or name): text
        for name, text in texts.items()
        if name in model.model_fields
    }


def attribute_docstrings(statements: list[ast.stmt]) -> dict[str, str]:
    """Return a mapping from each annotated attribute's name to its docstring."""
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in pairwise(statements)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def schema_of(model: type[BaseModel], *, optional: bool = False) -> dict[str, Any] | None:
    """Return the JSON schema with field aliases, or None if a schema cannot express the model.

    Args:
        model: Class of the message.
        optional: True if null is also valid.
    """
    kind: Any = model | None if optional else model
    try:
        # The names of the wire are the aliases, which pydantic uses by default.
        return TypeAdapter[Any](kind).json_schema()
    except PydanticInvalidForJsonSchema:
        return None


def sample_of(schema: Schema) -> Any:
    """Return a sample value that the schema permits.

    If the schema has a default or an example for a part, the sample contains it. A part without a
    default or example has a small permitted value. A validator may still reject the sample, because
    a schema does not describe validators.
    """
    return sample_part(schema, schema.get("$defs", {}), MAX_SAMPLE_DEPTH)


def describe(schema: Schema, definitions: Schema) -> str:
    """Return a short description of a type: `uuid`, `array of Segment`, `en or de`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return " or ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if branches := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(describe(branch, definitions) for branch in branches))
    if schema.get("type") == "array" and "items" in schema:
        return f"array of {describe(schema['items'], definitions)}"
    return str(schema.get("format") or schema.get("type") or "any")


def sample_part(schema: Schema, definitions: Schema, depth: int) -> Any:
    """Return a sample value for one part of a schema."""
    if "$ref" in schema:
        return sample_part(
            definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), definitions, depth - 1
        )
    for keyword in ("default", "const"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("examples", "enum"):
        if schema.get(keyword):
            return schema[keyword][0]
    if branches := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return sample_part(
            next((branch for branch in branches if branch.get("type") != "null"), branches[0]),
            definitions,
            depth,
        )
    return sample_by_type(schema, definitions, depth)


def sample_by_type(schema: Schema, definitions: Schema, depth: int) -> Any:
    """Return a sample value for a part that specifies only its type."""
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {}) if depth > 0 else {}
            return {
                name: sample_part(part, definitions, depth - 1) for name, part in properties.items()
            }
        case "array":
            return sample_array(schema, definitions, depth)
        case _:
            return sample_scalar(schema)


def sample_scalar(schema: Schema) -> str | float | bool | None:
    """Return a sample string, number or boolean. Return None for another type."""
    match schema.get("type"):
        case "string":
            return sample_string(schema)
        case "integer":
            return int(sample_number(schema))
        case "number":
            return sample_number(schema)
        case "boolean":
            return False
        case _:
            return None


def sample_array(schema: Schema, definitions: Schema, depth: int) -> list[Any]:
    """Return an array with the minimum number of elements.

    If the minimum is 0, the array has one element, unless the schema does not describe the elements
    or the maximum depth is reached.
    """
    fixed = [sample_part(item, definitions, depth - 1) for item in schema.get("prefixItems", [])]
    if "items" not in schema or not isinstance(schema["items"], Mapping) or depth <= 0:
        return fixed
    more = max(int(schema.get("minItems", 1)) - len(fixed), 0 if fixed else 1)
    return [*fixed, *(sample_part(schema["items"], definitions, depth - 1) for _ in range(more))]


def sample_string(schema: Schema) -> str:
    """Return a sample string of the schema's format.

    If there is no sample for the format, return an ellipsis, which the user replaces.
    """
    text = STRINGS.get(str(schema.get("format")), "…")
    text += "…" * (int(schema.get("minLength", 0)) - len(text))
    return text[: int(schema.get("maxLength", len(text)))]
