"""What a message looks like: its fields, its JSON schema, and a sample that can be filled in."""

import ast
import contextlib
import inspect
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

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
"""By JSON schema's formats; the addresses are those that are set aside for documents."""
LIBRARIES = {"pydantic", "bus", "typing", "builtins"}
"""Their classes have no fields of a message, and their long sources take a while to read."""
MAX_SAMPLE_DEPTH = 8
"""Levels of a sample; a model that holds itself ends here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field, as it is called on the wire."""

    name: str
    type: str
    required: bool
    description: str | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def fields_of(model: type[BaseModel]) -> list[Field]:
    """The fields in their order."""
    schema, written = schema_of(model) or {}, docstrings(model)
    required, definitions = schema.get("required", []), schema.get("$defs", {})
    return [
        Field(
            name=name,
            type=describe(each, definitions),
            required=name in required,
            description=each.get("description") or written.get(name),
        )
        for name, each in schema.get("properties", {}).items()
    ]


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What the source says below each field, by its name on the wire; nothing where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(
        [each for each in model.__mro__ if each.__module__.partition(".")[0] not in LIBRARIES]
    ):
        with contextlib.suppress(OSError, TypeError, SyntaxError):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            found |= written_below(body.body) if isinstance(body, ast.ClassDef) else {}
    return {
        (model.model_fields[name].alias or name): text
        for name, text in found.items()
        if name in model.model_fields
    }


def written_below(statements: list[ast.stmt]) -> dict[str, str]:
    """Each annotated name with the string that follows it."""
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in pairwise(statements)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def schema_of(model: type[BaseModel]) -> dict[str, Any] | None:
    """The JSON schema, by alias; None for a model that has a part which JSON schema has no words for."""
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return None


def sample_of(schema: Schema) -> Any:
    """A value that fits as far as a schema can tell: defaults and examples where there are any, else the least that is allowed."""
    return sample(schema, schema.get("$defs", {}), MAX_SAMPLE_DEPTH)


def describe(schema: Schema, definitions: Schema) -> str:
    """A type in a few words: `uuid`, `array of Segment`, `en or de`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return " or ".join(str(each) for each in schema.get("enum", [schema.get("const")]))
    if branches := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(describe(each, definitions) for each in branches))
    if schema.get("type") == "array" and "items" in schema:
        return f"array of {describe(schema['items'], definitions)}"
    return str(schema.get("format") or schema.get("type") or "any")


def sample(schema: Schema, definitions: Schema, depth: int) -> Any:
    """The sample of one part."""
    if "$ref" in schema:
        return sample(
            definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), definitions, depth - 1
        )
    for known in ("default", "const"):
        if known in schema:
            return schema[known]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    if branches := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return sample(
            next((each for each in branches if each.get("type") != "null"), branches[0]),
            definitions,
            depth,
        )
    return of_type(schema, definitions, depth)


def of_type(schema: Schema, definitions: Schema, depth: int) -> Any:
    """The sample of a part that is told by its type."""
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {}) if depth > 0 else {}
            return {name: sample(each, definitions, depth - 1) for name, each in properties.items()}
        case "array":
            return array(schema, definitions, depth)
        case _:
            return scalar(schema)


def scalar(schema: Schema) -> str | float | bool | None:
    """The sample of a part that has no parts."""
    match schema.get("type"):
        case "string":
            return string(schema)
        case "integer":
            return int(number(schema))
        case "number":
            return number(schema)
        case "boolean":
            return False
        case _:
            return None


def array(schema: Schema, definitions: Schema, depth: int) -> list[Any]:
    """One element, so that its form is seen; as many as have to be."""
    fixed = [sample(each, definitions, depth - 1) for each in schema.get("prefixItems", [])]
    if "items" not in schema or not isinstance(schema["items"], Mapping) or depth <= 0:
        return fixed
    more = max(int(schema.get("minItems", 1)) - len(fixed), 0 if fixed else 1)
    return [*fixed, *(sample(schema["items"], definitions, depth - 1) for _ in range(more))]


def string(schema: Schema) -> str:
    """By its format, else dots that say that something is to be put there."""
    text = STRINGS.get(str(schema.get("format")), "…")
    text += "…" * (int(schema.get("minLength", 0)) - len(text))
    return text[: int(schema.get("maxLength", len(text)))]


def number(schema: Schema) -> float:
    """The least that is allowed, or else the most, or else 0; whole where it can be."""
    step: float = schema.get("multipleOf", 1)
    above: float | None = schema.get("exclusiveMinimum")
    below: float | None = schema.get("exclusiveMaximum")
    if above is not None:
        least = (math.floor(above / step) + 1) * step
        most = below if below is not None else schema.get("maximum", math.inf)
        return least if least < most else (above + most) / 2
    bound: float = schema.get(
        "minimum", schema.get("maximum", 0 if below is None else below - step)
    )
    return (
        bound if bound % step == 0 or "multipleOf" not in schema else math.ceil(bound / step) * step
    )
