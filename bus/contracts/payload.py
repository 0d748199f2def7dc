"""Payloads: the conversion of a contract's values to JSON and back.

`bus.contracts.contract` exports `decode` and `encode`. Error messages never contain a value.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic_core import PydanticSerializationError
from pydantic_core.core_schema import ErrorType

from bus.errors import BusError, ContractViolation

__all__ = ["decode", "encode"]


def encode(message: BaseModel | None, model: type[BaseModel] | None = None) -> bytes:
    """Return the message as JSON (UTF-8). A field that has an alias is written under its alias.

    Args:
        message: Message to encode. None becomes `null`.
        model: Class whose fields are encoded. Fields that only a subclass has are left out. The
            default is the message's own class.

    Raises:
        ContractViolation: A value contains a lone surrogate, or does not match its field. A value
            that does not match its field can occur only in a message from `model_construct`. By
            default pydantic would encode the mismatched value, and show it in a warning.
    """
    if message is None:
        return b"null"
    model = model or type(message)
    try:
        return model.__pydantic_serializer__.to_json(message, by_alias=True, warnings="error")
    except PydanticSerializationError:
        problem = f"{model.__name__}: a value does not match its field, or is not valid Unicode"
    # This error is raised outside the `except` block, so that pydantic's error does not become its
    # context. Pydantic's error contains the value.
    raise ContractViolation(f"{problem}. Correct the value.")


def decode(model: type[Any] | None, body: bytes, *, extra: Literal["forbid"] | None = None) -> Any:
    """Return the message that a JSON body contains.

    Args:
        model: Class of the message. If it is None, the function returns None.
        body: JSON as UTF-8.
        extra: `"forbid"` rejects fields that the class does not have. None keeps the class's own
            rule. A `Message` ignores fields that its class does not have.

    Raises:
        ContractViolation: The body does not match the class. The error names fields and rules. Or a
            validator of the class raised an exception. That exception is the cause of the error.
        BusError: A validator of the class raised this error.
    """
    if model is None:
        return None
    try:
        return model.__pydantic_validator__.validate_json(body, extra=extra)
    except ValidationError as error:
        violations = _describe_violations(model, error)
    except PASSED_ON:
        raise
    except Exception as error:
        # The cause keeps its traceback, so the log can show where the validator failed. Its text
        # can contain the value, so only the name of its class is in the error.
        raise ContractViolation(
            f"{model.__name__}: a validator raised {type(error).__name__}, so the message is "
            f"invalid. Correct the message, or raise ValueError in the validator."
        ) from error
    # This error is raised outside the `except` block for the same reason as the error in `encode`.
    raise ContractViolation(f"{model.__name__}: {violations}")


PASSED_ON = (BusError, MemoryError, PydanticUserError)
"""Exceptions of a decoding that are not the sender's fault, and errors that a validator raised for
the caller. `PydanticUserError` means that pydantic could not build the class's validator."""
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
