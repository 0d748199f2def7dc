"""Payload from an argument, a file or standard input, checked against its contract.

Errors name the field and the rule, and never a value: payloads are confidential, and a terminal's
output is often copied to logs.
"""

import json
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import Literal

import typer

from bus.contracts.contract import Contract, Message, decode
from bus.contracts.schema import schema_of
from bus.errors import ContractViolation, InvalidArgument, NotFound
from bus.messaging.utf8_text import NotUtf8, decode_utf8

__all__ = ["message_from"]

STANDARD_INPUT = "-"


def message_from(contract: Contract, arguments: list[str], file: Path | None) -> Message:
    """Read the payload, and return it as a message of the contract.

    Args:
        contract: Contract of the message.
        arguments: Payload arguments of the command, at most one. `-` means standard input.
        file: Path from `--file`. `-` means standard input.

    Raises:
        InvalidArgument: The payload is missing, or is not JSON in UTF-8.
        ContractViolation: The payload does not fit the contract. The error names the fields.
        NotFound: The file cannot be read.
        typer.BadParameter: There is more than one payload.
    """
    text = require_utf8(read_payload(contract, arguments, file))
    try:
        message: Message = decode(
            contract.model, text, extra=extra_fields(contract), subject=contract.type
        )
    except ContractViolation as error:
        problem = json_problem(text)
        if problem:
            raise InvalidArgument(f"the payload is not JSON: {problem}") from None
        raise ContractViolation(f"{error} {advice_for(error, contract)}") from None
    return message


def read_payload(contract: Contract, arguments: list[str], file: Path | None) -> bytes:
    """Return the payload's bytes. `message_from` describes the parameters and the errors."""
    if len(arguments) > 1:
        raise typer.BadParameter(
            "the payload must be one argument. Put it in single quotes.", param_hint="PAYLOAD"
        )
    if arguments and file is not None:
        raise typer.BadParameter(
            "the payload is given both as an argument and by --file. Use only one of them.",
            param_hint="PAYLOAD",
        )
    if file is not None and str(file) != STANDARD_INPUT:
        return require_content(read_file(file), contract, f"{file} is empty")
    if arguments and arguments[0] != STANDARD_INPUT:
        return arguments[0].encode(errors="surrogateescape")  # the same bytes that the shell passed
    requested = bool(arguments or file)
    text = b"" if sys.stdin.isatty() and not requested else sys.stdin.buffer.read()
    if requested or any(field.is_required() for field in contract.model.model_fields.values()):
        return require_content(text, contract, "the payload is missing")
    return text if text.removeprefix(BOM_UTF8).strip() else b"{}"


def require_content(text: bytes, contract: Contract, problem: str) -> bytes:
    """Return the text, or raise `InvalidArgument` with the problem if the text is empty."""
    if text.removeprefix(BOM_UTF8).strip():
        return text
    raise InvalidArgument(
        f"{problem}. Pass the payload as an argument, by --file, or on standard input. "
        f"{describe_fields(contract)}"
    )


def require_utf8(payload: bytes) -> bytes:
    """Return the payload without a byte order mark.

    Raises:
        InvalidArgument: The payload is not UTF-8.
    """
    try:
        return decode_utf8(payload).encode()
    except NotUtf8 as error:
        raise InvalidArgument(f"the payload {error}.") from None


def read_file(file: Path) -> bytes:
    """Return the file's bytes, or raise `NotFound` if the file cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error


def describe_fields(contract: Contract) -> str:
    """Return the names of the contract's fields, and the command that explains them."""
    fields = ", ".join((schema_of(contract.model) or {}).get("properties", {})) or "none"
    return f"Fields of the contract: {fields}. See `bus contracts show {contract.type}`."


def advice_for(error: ContractViolation, contract: Contract) -> str:
    """Return the names of the fields and the command, without names that the error already lists.

    The error can list the fields of an inner object instead, so the lists are compared.
    """
    fields = ", ".join(sorted((schema_of(contract.model) or {}).get("properties", {})))
    if fields and f"(known fields: {fields})" in str(error):
        return f"See `bus contracts show {contract.type}`."
    return describe_fields(contract)


def json_problem(text: bytes) -> str | None:
    """Return the reason and the position if the text is not JSON, or None if it is JSON.

    The reason is a fixed message of the parser, which contains no part of the text.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        # Some reasons end with "at", because the parser adds the position.
        reason = error.msg.removesuffix(" at").removesuffix(" starting")
        return f"line {error.lineno}, column {error.colno}: {reason}"
    except RecursionError:
        return "the text is nested too deeply"
    except ValueError:  # Python refuses to read a number of thousands of digits
        return "a number has too many digits"
    return None


def extra_fields(contract: Contract) -> Literal["forbid"] | None:
    """Return the value of pydantic's option `extra` for the payload.

    With `forbid` an unknown field is an error. Without `forbid` the bus drops the field silently.
    The value is None if one of the contract's models accepts extra fields.
    """
    schema = schema_of(contract.model) or {}
    models = [schema, *schema.get("$defs", {}).values()]
    open_ended = any(
        model.get("additionalProperties") is True and "properties" in model for model in models
    )
    return None if open_ended else "forbid"
