"""Sample payload, schemas and JSON of one contract, for `bus contracts`."""

import json
from typing import Any

from bus.cli.output import say
from bus.contracts.contract import Contract, decode
from bus.contracts.schema import fields_of, sample_of, schema_of
from bus.errors import ContractViolation, FailedPrecondition
from bus.messaging.envelope import ErrorReply, Progress

__all__ = [
    "answer_schemas",
    "checked_sample",
    "path_of",
    "reply_name",
    "reply_schema_of",
    "require_reply_schema",
    "to_json",
]


def checked_sample(contract: Contract, schema: dict[str, Any]) -> Any:
    """Return a sample payload for the schema.

    A contract can have rules that a schema cannot express. If the sample breaks such a rule, print
    the rule.
    """
    value = sample_of(schema)
    try:
        decode(contract.model, json.dumps(value).encode(), subject=contract.type)
    except ContractViolation as error:
        say(f"change the sample before you send it: {error}")
    return value


def reply_schema_of(contract: Contract) -> dict[str, Any] | None:
    """Return the JSON schema of the reply or result. None if it has no schema, or for an event."""
    if contract.kind == "event":
        return None
    if contract.reply is None:
        return {"type": "null"}
    return schema_of(contract.reply, optional=contract.is_reply_optional)


def require_reply_schema(contract: Contract) -> dict[str, Any]:
    """Return the JSON schema of the reply or result.

    Raises:
        FailedPrecondition: The contract has no reply, or the reply has no schema.
    """
    schema = reply_schema_of(contract)
    if schema is not None:
        return schema
    if contract.reply is None:
        raise FailedPrecondition(
            f"{contract.type} is an event, which has no reply. Leave out --reply-schema."
        )
    raise FailedPrecondition(
        f"{contract.type}: the reply has a field that JSON schema cannot describe. "
        f"Read the class {contract.reply.__module__}.{contract.reply.__qualname__}."
    )


def answer_schemas(contract: Contract) -> dict[str, Any]:
    """Return the JSON schemas of all messages that answer a message of the contract."""
    answered = contract.kind != "event"
    return {
        "reply_schema": reply_schema_of(contract),
        "progress_schema": schema_of(Progress) if contract.kind == "job" else None,
        "error_schema": schema_of(ErrorReply) if answered else None,
    }


def to_json(contract: Contract) -> dict[str, Any]:
    """Return a contract as JSON; the keys are part of the command line's interface."""
    return {
        "type": contract.type,
        "kind": contract.kind,
        "service": contract.service,
        "reply": contract.reply.__name__ if contract.reply else None,
        "reply_optional": contract.is_reply_optional,
        "fields": [field.as_json() for field in fields_of(contract.model)],
        "permission": contract.permission,
        "idempotent": contract.idempotent,
        "criticality": contract.criticality,
        "cache": contract.cache,
        "class": path_of(contract),
    }


def reply_name(contract: Contract) -> str:
    """Return the name of a contract's reply class, and whether the reply can be null."""
    name = contract.reply.__name__ if contract.reply else "null"
    return f"{name} or null" if contract.is_reply_optional else name


def path_of(contract: Contract) -> str:
    """Return the import path of the contract's class."""
    return f"{contract.model.__module__}.{contract.model.__qualname__}"
