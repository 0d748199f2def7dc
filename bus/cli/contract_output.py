"""Tables and texts of `bus contracts`."""

import inspect
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bus.cli.contract_schemas import checked_sample, path_of, reply_name, reply_schema_of
from bus.cli.loading import Known
from bus.cli.output import fits, print_json
from bus.contracts.contract import Contract, Message
from bus.contracts.criticality import DEFAULT_CRITICALITY
from bus.contracts.schema import Field, fields_of
from bus.messaging.envelope import ErrorReply, Progress
from bus.messaging.timers import format_seconds

__all__ = ["show_all", "show_one", "table_row"]

INDENT = (0, 0, 0, 2)
"""Padding that indents the details below a contract's type."""


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
    """Print a row for each field of a message: name, type with limits, and description."""
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True)
    for field in fields_of(model):
        table.add_row(
            f"{field.name}{'' if field.required else '?'}",
            # Patterns and descriptions can have brackets, which are not markup.
            Text(describe_type(field)),
            Text(field.description or ""),
        )
    console.print(table)


def describe_type(field: Field) -> str:
    """Return the type of a field with its limits, such as `string, 1 to 50 characters`."""
    mark = "sensitive" if field.sensitive else ""
    return ", ".join(filter(None, [field.type, field.limits, mark]))


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
    if contract.criticality != DEFAULT_CRITICALITY:
        properties.append(("criticality", contract.criticality))
    if contract.cache is not None:
        properties.append(("cache", f"a client keeps a reply for {format_seconds(contract.cache)}"))
    return properties


def send_command(contract: Contract) -> str:
    """Return the heading above a sample payload. It shows how to send the sample from a file."""
    verb = {"request": "call", "event": "publish", "job": "submit"}[contract.kind]
    owner = f" --as {contract.service}" if contract.kind == "event" else ""
    return f"bus {verb} {contract.type}{owner} --file payload.json, with this file:"
