"""Payloads: the conversion of a contract's values to JSON and back.

`bus.contracts.contract` exports `decode` and `encode`. Error messages never contain a value.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError
from pydantic_core.core_schema import ErrorType

from bus.errors import ContractViolation

__all__ = ["NO_CONTENT", "decode", "encode"]


NO_CONTENT = b"null"
"""Body of a message without content."""
EMPTY_OBJECT = b"{}"
NOT_ENCODABLE = (
    "has a value that does not match its type, or is not valid Unicode. Correct the value"
)
NOT_LOADED: Any = object()
_guards: dict[type[BaseModel], Any] = {}
"""Guard of each class that was encoded, or None if the class needs no guard."""


def encode(message: BaseModel | None, model: type[BaseModel] | None = None) -> bytes:
    """Return the message as JSON (UTF-8). A field that has an alias is written under its alias.

    Args:
        message: Message to encode. None becomes `null`.
        model: Class whose fields are encoded. Fields that only a subclass has are left out. The
            default is the message's own class.

    Raises:
        ContractViolation: A value does not match its field, contains a lone surrogate, or is NaN or
            infinity. Or a field holds an object of a subclass, whose additional fields would be
            lost. pydantic does not check the values of `model_construct`, `model_copy`, `Any` and
            standard dataclasses, so the bus checks them here. The error names the field.
    """
    if message is None:
        return NO_CONTENT
    model = model or type(message)
    try:
        body = model.__pydantic_serializer__.to_json(message, by_alias=True, warnings="error")
    except PydanticSerializationError:
        find_unencodable = import_module("bus.contracts.encode_faults").find_unencodable
        path, text = find_unencodable(message, model), NOT_ENCODABLE
    else:
        guard = _guards.get(model, NOT_LOADED)
        if guard is NOT_LOADED:
            # A process that only receives messages does not load the checks.
            guard_for = import_module("bus.contracts.guards").guard_for
            guard = _guards[model] = guard_for(model)
        problem = None if guard is None else guard.find_problem(message, body)
        if problem is None:
            return body
        path, text = problem
    # This error is raised outside the `except` block, so that pydantic's error does not become its
    # context. Pydantic's error contains the value.
    name = f"the field `{path}`" if path else "the message"
    raise ContractViolation(f"{model.__name__}: {name} {text}.")


def decode(model: type[Any] | None, body: bytes, *, extra: Literal["forbid"] | None = None) -> Any:
    """Return the message that a JSON body contains.

    The body `null` is a message without content. A class accepts it if no field is required.

    Args:
        model: Class of the message. If it is None, the function returns None.
        body: JSON as UTF-8.
        extra: `"forbid"` rejects fields that the class does not have. None keeps the class's own
            rule. A `Message` ignores fields that its class does not have.

    Raises:
        ContractViolation: The body does not match the class. The error names fields and rules.
    """
    if model is None:
        return None
    try:
        return model.__pydantic_validator__.validate_json(body, extra=extra)
    except ValidationError as error:
        if body.strip() == NO_CONTENT:
            with suppress(ValidationError):
                return model.__pydantic_validator__.validate_json(EMPTY_OBJECT)
        violations = _describe_violations(model, error)
    # This error is raised outside the `except` block for the same reason as the error in `encode`.
    raise ContractViolation(f"{model.__name__}: {violations}")


MAX_FAULTS_SHOWN = 5
RULES = frozenset(get_args(ErrorType))
"""Names of pydantic's own rules.

An error message shows only these names. A user's validator can choose any name for a rule, even a
name that contains the value.
"""


def _describe_violations(model: type[BaseModel], error: ValidationError) -> str:
    """Return the names of the invalid fields, and the rule that each field violates.

    The description contains no values and no keys of mappings. It also contains no messages of a
    user's validator.
    """
    names = _field_names(model)
    details = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [
        f"{_format_location(detail['loc'], names)}: "
        f"{detail['type'].replace('_', ' ') if detail['type'] in RULES else 'custom rule'}"
        for detail in details[:MAX_FAULTS_SHOWN]
    ]
    more = len(details) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


def _format_location(location: tuple[int | str, ...], names: frozenset[str]) -> str:
    """Return the path to a field. Parts that are not field names are replaced by `*`."""
    parts = (str(part) if isinstance(part, int) or part in names else "*" for part in location)
    return ".".join(parts) or "body"


@cache
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    """Return all field names in the model's schema, at any depth."""

    def names(schema: object) -> Iterator[str]:
        if isinstance(schema, dict):
            properties = schema.get("properties")
            if isinstance(properties, dict):
                yield from properties
            for inner in schema.values():
                yield from names(inner)
        elif isinstance(schema, list):
            for inner in schema:
                yield from names(inner)

    try:
        return frozenset(names(model.model_json_schema()))
    except PydanticInvalidForJsonSchema:
        return frozenset(model.model_fields)
