"""`bus contracts`: which requests, events and jobs this command line knows, and what they look like."""

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
from bus.contracts.contract import Contract, decode
from bus.contracts.schema import fields_of, sample_of, schema_of
from bus.errors import ContractViolation, FailedPrecondition

__all__ = ["command"]

BELOW = (0, 0, 0, 2)
"""Where what belongs to the line above begins."""

command = typer.Typer(
    help="List the contracts that are known here, or show one.", invoke_without_command=True
)


@command.callback()
def listed(context: typer.Context, *, contracts: Contracts = None, as_json: AsJson = False) -> None:
    """List the contracts that are known here, or show one.

    They are found in Python modules: those of --contracts or BUS_CONTRACTS, else the package 'contracts' in this folder.
    """
    if context.invoked_subcommand is not None:
        context.obj = contracts
        return
    known = known_contracts(contracts or [])
    if as_json:
        print_json([as_value(each) for each in known.contracts], compact=True)
    else:
        show_all(known, table_console())


@command.command()
def show(
    context: typer.Context,
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE", help="Such as transcription.get.v1.", autocompletion=completed_types()
        ),
    ],
    *,
    contracts: Contracts = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Print a sample payload alone, to be filled in.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the payload's JSON schema alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one contract: its fields, a sample payload, and how it is sent."""
    contract = contract_named(type_, contracts or context.obj or [])
    described = schema_of(contract.model)
    if described is None:
        raise FailedPrecondition(
            f"{contract.type} has a field that JSON schema has no words for; see {place(contract)}"
        )
    if schema:
        print_json(described, compact=as_json)
    elif sample:
        print_json(fitting_sample(contract, described), compact=as_json)
    elif as_json:
        print_json(
            {**as_value(contract), "sample": sample_of(described), "schema": described},
            compact=True,
        )
    else:
        show_one(contract, described, table_console())


def fitting_sample(contract: Contract, schema: dict[str, Any]) -> Any:
    """A sample, with a word where a rule of the contract's is more than a schema can say."""
    value = sample_of(schema)
    try:
        decode(contract.model, json.dumps(value).encode())
    except ContractViolation as error:
        say(f"to be filled in: {error}")
    return value


def as_value(contract: Contract) -> dict[str, Any]:
    """For programs."""
    return {
        "type": contract.type,
        "kind": contract.kind,
        "service": contract.service,
        "reply": contract.reply.__name__ if contract.reply else None,
        "fields": [each.as_json() for each in fields_of(contract.model)],
        "permission": contract.permission,
        "idempotent": contract.idempotent,
        "class": place(contract),
    }


def place(contract: Contract) -> str:
    """Where its class is."""
    return f"{contract.model.__module__}.{contract.model.__qualname__}"


def show_all(known: Known, console: Console) -> None:
    """A table: type, kind, what comes back, the right that it needs, fields. On a narrow screen all that stands below the type."""
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
    for each in known.contracts:
        table.add_row(*row(each))
    if fits(table, console):
        console.print(table)
    else:
        narrow(known.contracts, console)
    console.print(
        f"\n{known.looked_at()}; a field with ? may be left out; a permission - is the name",
        style="dim",
        highlight=False,
    )


def row(contract: Contract) -> tuple[str, str, str, str, str]:
    """One contract."""
    fields = ", ".join(
        f"{field.name}{'' if field.required else '?'}" for field in fields_of(contract.model)
    )
    reply = contract.reply.__name__ if contract.reply else "-"
    return (
        contract.type,
        contract.kind,
        reply,
        "-" if contract.permission == contract.name else contract.permission,
        fields or "-",
    )


def narrow(contracts: Iterable[Contract], console: Console) -> None:
    """A type in full, since it is what the next command takes, and below it what would not fit beside it."""
    console.print("type\n  kind, reply, permission\n  fields", style="bold", highlight=False)
    for each in contracts:
        type_, *about, fields = row(each)
        console.print(Text(type_), soft_wrap=True)
        console.print(Padding(Text(", ".join(about), style="dim"), BELOW))
        console.print(Padding(Text(fields), BELOW))


def show_one(contract: Contract, schema: dict[str, Any], console: Console) -> None:
    """All of one contract that a caller needs."""
    console.print(
        f"[bold]{contract.type}[/], {contract.kind} of {contract.service}", highlight=False
    )
    console.print(place(contract), style="dim", highlight=False)
    if contract.model.__doc__:  # its own: that of its kind is about the bus
        console.print(inspect.cleandoc(contract.model.__doc__), markup=False, highlight=False)
    console.print()
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True)
    for each in fields_of(contract.model):
        table.add_row(
            f"{each.name}{'' if each.required else '?'}", each.type, each.description or ""
        )
    console.print(table)
    for name, value in facts(contract):
        console.print(f"  {name}: {value}", markup=False, highlight=False)
    console.print(f"\n[bold]{how(contract)}[/]", highlight=False)
    print_json(fitting_sample(contract, schema), compact=False)


def facts(contract: Contract) -> list[tuple[str, str]]:
    """What else a caller wants to know."""
    found = []
    if contract.kind != "event":
        answer = contract.reply
        fields = f" ({', '.join(each.name for each in fields_of(answer))})" if answer else ""
        found.append(
            (
                "answers" if contract.kind == "request" else "its result",
                f"{answer.__name__ if answer else 'nothing'}{fields}",
            )
        )
    found.append(("needs the right", contract.permission))
    if contract.idempotent:
        found.append(("idempotent", "it may be sent again blindly"))
    return found


def how(contract: Contract) -> str:
    """The command that sends it, with the sample as its payload."""
    verb = {"request": "call", "event": "publish", "job": "submit"}[contract.kind]
    owner = f" --as {contract.service}" if contract.kind == "event" else ""
    return f"bus {verb} {contract.type}{owner} --file payload.json, where the file has:"
