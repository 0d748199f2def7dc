"""Payloads: a contract's values to JSON and back. `bus.contracts.contract` has these names, too; no error's text holds a value."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError
from pydantic_core.core_schema import ErrorType

from bus.errors import ContractViolation

__all__ = ["decode", "encode"]


def encode(message: BaseModel | None, model: type[BaseModel] | None = None) -> bytes:
    """The message as JSON (UTF-8), by alias; None is `null`. What is not in `model` (default: its class) stays here.

    Raises `ContractViolation` for what only `model_construct` or a lone surrogate can have made. Without an error of its
    own pydantic would send it, and warn with the value in the warning's text.
    """
    if message is None:
        return b"null"
    model = model or type(message)
    try:
        return model.__pydantic_serializer__.to_json(message, by_alias=True, warnings="error")
    except PydanticSerializationError:
        fault = f"{model.__name__}: a value does not fit its field, or is no Unicode text"
    raise ContractViolation(
        fault
    )  # outside of the handler: the other error, with the value in it, is no context of this


def decode(model: type[Any] | None, body: bytes, *, extra: Literal["forbid"] | None = None) -> Any:
    """The message of class `model` in `body`; `ContractViolation` names the fields and rules that it breaks.

    Fields that it does not have are what its class says, which is ignored; with `extra="forbid"` they break a rule.
    """
    if model is None:
        return None
    try:
        return model.__pydantic_validator__.validate_json(body, extra=extra)
    except ValidationError as error:
        faults = _faults(model, error)
    raise ContractViolation(f"{model.__name__}: {faults}")  # outside of the handler, as in `encode`


MAX_FAULTS_SHOWN = 5
RULES = frozenset(get_args(ErrorType))
"""The rules that are pydantic's own; a validator may name one of its own after what it saw."""


def _faults(model: type[BaseModel], error: ValidationError) -> str:
    """Fields and rules, without values: a key of a mapping and the text of a user's validator are values, too."""
    names = _field_names(model)
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{'.'.join(str(part) if isinstance(part, int) or part in names else '*' for part in fault['loc']) or 'body'}: "
        f"{fault['type'].replace('_', ' ') if fault['type'] in RULES else 'a rule of its own'}"
        for fault in faults[:MAX_FAULTS_SHOWN]
    ]
    more = len(faults) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


@cache
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    """Every field name that the model's schema knows, at any depth."""

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
