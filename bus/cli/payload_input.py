"""A payload from an argument, a file or standard input, checked against its contract before it leaves.

What is wrong is told by field and rule: a payload is a patient's data, and a terminal's words end in logs.
"""

import json
import sys
from pathlib import Path
from typing import Literal

import typer

from bus.contracts.contract import Contract, Message, decode
from bus.contracts.schema import schema_of
from bus.errors import ContractViolation, InvalidArgument, NotFound

__all__ = ["message_from"]

STANDARD_INPUT = "-"


def message_from(contract: Contract, given: list[str], file: Path | None) -> Message:
    """The message; `ContractViolation` names the fields that do not fit, `InvalidArgument` where there is no JSON."""
    text = written(contract, given, file)
    try:
        message: Message = decode(contract.model, text, extra=strictness(contract))
    except ContractViolation as error:
        place = not_json(text)
        if place:
            raise InvalidArgument(f"the payload is not JSON: {place}") from None
        raise ContractViolation(f"{error}; {hint(contract)}") from None
    return message


def written(contract: Contract, given: list[str], file: Path | None) -> bytes:
    """The bytes that were given, from the one place that was."""
    if len(given) > 1:
        raise typer.BadParameter(
            "the payload is one argument: put it in single quotes", param_hint="PAYLOAD"
        )
    if given and file is not None:
        raise typer.BadParameter(
            "give the payload either as an argument or as a file", param_hint="PAYLOAD"
        )
    if file is not None and str(file) != STANDARD_INPUT:
        return of_file(file)
    if given and given[0] != STANDARD_INPUT:
        return given[0].encode(errors="surrogateescape")  # the bytes as the shell gave them
    asked = bool(given or file)
    text = b"" if sys.stdin.isatty() and not asked else sys.stdin.buffer.read()
    if text.strip():
        return text
    if asked or any(field.is_required() for field in contract.model.model_fields.values()):
        raise InvalidArgument(
            f"no payload: give it as an argument, by --file, or on standard input; {hint(contract)}"
        )
    return b"{}"


def of_file(file: Path) -> bytes:
    """What is in it; `NotFound` where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error


def hint(contract: Contract) -> str:
    """What would fit, and where a person sees more."""
    fields = ", ".join((schema_of(contract.model) or {}).get("properties", {})) or "none"
    return f"its fields: {fields} (`bus contracts show {contract.type}`)"


def not_json(text: bytes) -> str | None:
    """Why it is no JSON, and where; the parser's texts are a fixed set and hold nothing of what was parsed."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except RecursionError:
        return "it is nested too deeply"
    return None


def strictness(contract: Contract) -> Literal["forbid"] | None:
    """Refuse a field that the contract does not have, as it would be left out silently; but not where a model asks for more."""
    schema = schema_of(contract.model) or {}
    models = [schema, *schema.get("$defs", {}).values()]
    open_ended = any(
        each.get("additionalProperties") is True and "properties" in each for each in models
    )
    return None if open_ended else "forbid"
