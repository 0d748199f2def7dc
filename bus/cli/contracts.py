"""`bus contracts`: show the contracts of requests, events and jobs."""

import inspect
import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bus.cli.loading import Known, contract_named, known_contracts
from bus.cli.options import AsJson, Contracts, completed_types
from bus.cli.output import fits, print_json, say, table_console
from bus.contracts.contract import Contract, Message, decode
from bus.contracts.schema import fields_of, sample_of, schema_of
from bus.errors import ContractViolation, FailedPrecondition
from bus.messaging.envelope import ErrorReply, Progress

__all__ = ["command"]

INDENT = (0, 0, 0, 2)
"""Padding that indents the details below a contract's type."""

command = typer.Typer(help="List the known contracts, or show one.", invoke_without_command=True)


@command.callback()
def list_contracts(
    context: typer.Context, *, contracts: Contracts = None, as_json: AsJson = False
) -> None:
    """List the known contracts, or show one.

    Contracts are in Python modules. Name the modules by --contracts or BUS_CONTRACTS. The default
    is the package 'contracts' in this folder.
    """
    if context.invoked_subcommand is not None:
        context.obj = contracts
        return
    known = known_contracts(contracts or [])
    if as_json:
        print_json([to_json(contract) for contract in known.contracts], compact=True)
    else:
        show_all(known, table_console())


@command.command()
def show(
    context: typer.Context,
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="The contract's type, such as transcription.get.v1. "
            "The only version may be left out.",
            autocompletion=completed_types(),
        ),
    ],
    *,
    contracts: Contracts = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Print only a sample payload, to fill in.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print only the payload's JSON schema.")
    ] = False,
    reply_schema: Annotated[
        bool,
        typer.Option(
            "--reply-schema", help="Print only the JSON schema of the reply or the job's result."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one contract: its fields, a sample payload, the command that sends it, and its reply.

    A schema describes the JSON that the receiver accepts. With --json the key "schema" is the
    payload's, and "reply_schema" is that of the reply or result. "progress_schema" is for the
    progress of a job, and "error_schema" for the error that replaces a reply or result. A key is
    null if the contract has no such message, or if JSON schema cannot describe the reply.
    """
    contract = contract_named(type_, contracts or context.obj or [])
    payload_schema = schema_of(contract.model)
    if payload_schema is None:
        raise FailedPrecondition(
            f"{contract.type} has a field that JSON schema cannot describe. "
            f"Read its class {path_of(contract)}."
        )
    if reply_schema:
        print_json(require_reply_schema(contract), compact=as_json)
    elif schema:
        print_json(payload_schema, compact=as_json)
    elif sample:
        print_json(checked_sample(contract, payload_schema), compact=as_json)
    elif as_json:
        print_json(
            {
                **to_json(contract),
                "sample": sample_of(payload_schema),
                "schema": payload_schema,
                **answer_schemas(contract),
            },
            compact=True,
        )
    else:
        show_one(contract, payload_schema, table_console())


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
        "class": path_of(contract),
    }


def reply_name(contract: Contract) -> str:
    """Return the name of a contract's reply class, and whether the reply can be null."""
    name = contract.reply.__name__ if contract.reply else "null"
    return f"{name} or null" if contract.is_reply_optional else name


def path_of(contract: Contract) -> str:
    """Return the import path of the contract's class."""
    return f"{contract.model.__module__}.{contract.model.__qualname__}"


def show_all(known: Known, console: Console) -> None:
    """Print the contracts as a table, or as a list if the console is too narrow for a table."""
    table = Table(
        "type",
        "kind",
        "reply",
        "permission",
        "fields",
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    for column in table.columns[:-1]:
        column.no_wrap = True
    for contract in known.contracts:
        table.add_row(*table_row(contract))
    if fits(table, console):
        console.print(table)
    else:
        show_narrow(known.contracts, console)
    console.print(
        f"\n{known.looked_at()}; ? marks an optional field; permission - is the contract's name",
        style="dim",
        highlight=False,
    )


def table_row(contract: Contract) -> tuple[str, str, str, str, str]:
    """Return the table row of one contract."""
    fields = ", ".join(
        f"{field.name}{'' if field.required else '?'}" for field in fields_of(contract.model)
    )
    reply = reply_name(contract) if contract.reply else "-"
    return (
        contract.type,
        contract.kind,
        reply,
        "-" if contract.permission == contract.name else contract.permission,
        fields or "-",
    )


def show_narrow(contracts: Iterable[Contract], console: Console) -> None:
    """Print each type on its own line, and the other columns of the table below that line.

    Types are never cut, so users can copy them.
    """
    console.print("type\n  kind, reply, permission\n  fields", style="bold", highlight=False)
    for contract in contracts:
        type_, *properties, fields = table_row(contract)
        console.print(Text(type_), soft_wrap=True)
        console.print(Padding(Text(", ".join(properties), style="dim"), INDENT))
        console.print(Padding(Text(fields), INDENT))


def show_one(contract: Contract, schema: dict[str, Any], console: Console) -> None:
    """Print the properties, the fields and a sample payload of one contract."""
    console.print(
        f"[bold]{contract.type}[/], {contract.kind} of {contract.service}", highlight=False
    )
    console.print(path_of(contract), style="dim", highlight=False)
    # A class does not inherit `__doc__`, so it is None for a contract without a docstring.
    if contract.model.__doc__:
        console.print(inspect.cleandoc(contract.model.__doc__), markup=False, highlight=False)
    console.print()
    show_fields(contract.model, console)
    for name, value in properties_of(contract):
        console.print(f"  {name}: {value}", markup=False, highlight=False)
    console.print(f"\n[bold]{send_command(contract)}[/]", highlight=False)
    print_json(checked_sample(contract, schema), compact=False)
    if contract.reply is not None:
        show_reply(contract, contract.reply, console)


def show_fields(model: type[Message], console: Console) -> None:
    """Print a row for each field of a message: name, type and description."""
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True)
    for field in fields_of(model):
        table.add_row(
            f"{field.name}{'' if field.required else '?'}", field.type, field.description or ""
        )
    console.print(table)


def show_reply(contract: Contract, reply: type[Message], console: Console) -> None:
    """Print the fields and the JSON schema of the reply or result."""
    console.print(
        f"\n[bold]The {answer_noun(contract)} is {reply_name(contract)}:[/]", highlight=False
    )
    show_fields(reply, console)
    schema = reply_schema_of(contract)
    if schema is not None:
        console.print(
            f"\n[bold]The JSON schema of the {answer_noun(contract)}:[/]", highlight=False
        )
        print_json(schema, compact=False)


def answer_noun(contract: Contract) -> str:
    """Return `reply` for a request, or `result` for a job."""
    return "reply" if contract.kind == "request" else "result"


def properties_of(contract: Contract) -> list[tuple[str, str]]:
    """Return labels and values of the contract's properties: reply, permission, idempotency."""
    properties = []
    if contract.kind != "event":
        reply = contract.reply
        fields = f" ({', '.join(field.name for field in fields_of(reply))})" if reply else ""
        properties.append(
            (
                answer_noun(contract),
                f"{reply_name(contract) if reply else 'nothing'}{fields}",
            )
        )
        properties.append(("error", f"ErrorReply ({', '.join(ErrorReply.model_fields)})"))
    if contract.kind == "job":
        properties.append(("progress", f"Progress ({', '.join(Progress.model_fields)})"))
    properties.append(("permission", contract.permission))
    if contract.idempotent:
        properties.append(("idempotent", "a second run has no further effect"))
    return properties


def send_command(contract: Contract) -> str:
    """Return the heading above a sample payload. It shows how to send the sample from a file."""
    verb = {"request": "call", "event": "publish", "job": "submit"}[contract.kind]
    owner = f" --as {contract.service}" if contract.kind == "event" else ""
    return f"bus {verb} {contract.type}{owner} --file payload.json, with this file:"
