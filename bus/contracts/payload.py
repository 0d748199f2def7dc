"""Payloads: the conversion of a contract's values to JSON and back.

`bus.contracts.contract` exports `decode` and `encode`. Error messages never contain a value.
"""

from importlib import import_module
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from bus.errors import ContractViolation

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


def decode(
    model: type[Any] | None,
    body: bytes,
    *,
    extra: Literal["forbid"] | None = None,
    subject: str | None = None,
) -> Any:
    """Return the message that a JSON body contains.

    Args:
        model: Class of the message. If it is None, the function returns None.
        body: JSON as UTF-8.
        extra: `"forbid"` rejects fields that the class does not have. None keeps the class's own
            rule. A `Message` ignores fields that its class does not have.
        subject: Begin of the error's text, such as the type of the message. The default is the name
            of the class.

    Raises:
        ContractViolation: The body does not match the class. The error names fields and rules.
    """
    if model is None:
        return None
    try:
        return model.__pydantic_validator__.validate_json(body, extra=extra)
    except ValidationError as error:
        # Only invalid messages need this module, which takes milliseconds to import.
        texts = import_module("bus.contracts.violations")
        violations = texts.describe_violations(model.__pydantic_core_schema__, error)
    # This error is raised outside the `except` block for the same reason as the error in `encode`.
    raise ContractViolation(f"{subject or model.__name__}: {violations}")
