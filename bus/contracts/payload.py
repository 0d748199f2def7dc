"""Payloads: the conversion of a contract's values to JSON and back.

`bus.contracts.contract` exports `decode` and `encode`. Error messages never contain a value.
"""

from contextlib import suppress
from importlib import import_module
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from bus.errors import BusError, ContractViolation

__all__ = ["NO_CONTENT", "decode", "encode"]


NO_CONTENT = b"null"
"""Body of a message without content."""
EMPTY_OBJECT = b"{}"
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
    guard = _guards.get(model, NOT_LOADED)
    if guard is NOT_LOADED:
        # A process that only receives messages does not load the checks.
        guard_for = import_module("bus.contracts.guards").guard_for
        guard = _guards[model] = guard_for(model)
    problem = None
    if guard is not None and guard.iterators:
        iterators = import_module("bus.contracts.iterators")
        message, problem = iterators.hold_elements(message, guard.iterators)
    if problem is None and guard is not None and guard.has_inner_iterators:
        message, problem = import_module("bus.contracts.iterators").hold_inside(message)
    if problem is None:
        try:
            body = model.__pydantic_serializer__.to_json(message, by_alias=True, warnings="error")
        except PydanticSerializationError:
            find_unencodable = import_module("bus.contracts.encode_faults").find_unencodable
            problem = find_unencodable(message, model, () if guard is None else guard.iterators)
        else:
            problem = None if guard is None else guard.find_problem(message, body)
            if problem is None:
                return body
    path, text = problem
    # This error is raised outside the `except` block, so that pydantic's error does not become its
    # context. Pydantic's error contains the value.
    raise ContractViolation(f"{model.__name__}: {_name_place(path)} {text}.")


def _name_place(path: str) -> str:
    if path.startswith("[*]"):  # the name of such a field is not from a class, so it is not shown
        return "an additional field"
    return f"the field `{path}`" if path else "the message"


def decode(
    model: type[Any] | None,
    body: bytes,
    *,
    extra: Literal["forbid"] | None = None,
    subject: str | None = None,
    noun: str = "message",
) -> Any:
    """Return the message that a JSON body contains.

    The body `null` is a message without content. A class accepts it if no field is required.

    Args:
        model: Class of the message. If it is None, the function returns None.
        body: JSON as UTF-8.
        extra: `"forbid"` rejects fields that the class does not have. None keeps the class's own
            rule. A `Message` ignores fields that its class does not have.
        subject: Begin of the error's text, such as the type of the message. The default is the name
            of the class.
        noun: Word for the payload in the error's text, such as "reply".

    Raises:
        ContractViolation: The body does not match the class. The error names fields and rules. Or a
            validator of the class raised an exception. That exception is the cause of the error.
        BusError: A validator of the class raised this error.
    """
    if model is None:
        return None
    validate = model.__pydantic_validator__.validate_json
    try:
        try:
            return validate(body, extra=extra)
        except ValidationError:
            if body.strip() != NO_CONTENT:
                raise
            with suppress(ValidationError):
                return validate(EMPTY_OBJECT)
            raise
    except ValidationError as error:
        # Only invalid messages need this module, which takes milliseconds to import.
        texts = import_module("bus.contracts.violations")
        violations = texts.describe_violations(model.__pydantic_core_schema__, error)
    except PASSED_ON:
        raise
    except BaseException as error:  # a validator that calls `sys.exit` must not end the receiver
        # The cause keeps its traceback, so the log can show where the validator failed. Its text
        # can contain the value, so only the name of its class is in the error.
        raise ContractViolation(
            f"{subject or model.__name__}: a validator raised {type(error).__name__}, so the "
            f"{noun} is invalid. Correct the {noun}, or raise ValueError in the validator."
        ) from error
    # This error is raised outside the `except` block for the same reason as the error in `encode`.
    raise ContractViolation(f"{subject or model.__name__}: {violations}")


PASSED_ON = (BusError, MemoryError, KeyboardInterrupt, PydanticUserError)
"""Exceptions of a decoding that are not the sender's fault, and errors that a validator raised for
the caller. `PydanticUserError` means that pydantic could not build the class's validator.
`KeyboardInterrupt` is Ctrl-C."""
