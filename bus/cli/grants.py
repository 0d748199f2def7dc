"""`bus grants`: check a grants file, and show the rights that it gives."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bus.cli.loading import Known, known_contracts
from bus.cli.options import Contracts, path
from bus.cli.output import fits, print_json, say, table_console
from bus.contracts.contract import Contract
from bus.security.grants import VERBS, Grants, Verb
from bus.security.grants_file import load_grants

__all__ = ["command"]

command = typer.Typer(
    no_args_is_help=True, help="Check a grants file, and show the rights of services and operators."
)


@command.callback()
def group() -> None:
    r"""Check a grants file, and show the rights of services and operators.

    The file is TOML, with a table for each service: \[services.reader] call = \["library.find"]. A
    table has up to three lists of permissions: call, publish and consume. `bus contracts show TYPE`
    shows the permission that a contract requires. The list control has the right to read the state
    of live services. The list jobs has the rights to read or cancel jobs of other submitters.
    """


@command.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            parser=path,
            envvar="BUS_GRANTS",
            show_default=False,
            help="The file, such as grants.toml.",
        ),
    ],
    *,
    contracts: Contracts = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on one line, for programs.")
    ] = False,
) -> None:
    """Check grants against the known contracts, and show the rights.

    Three things are errors: a permission that no contract requires, an unknown service, and a
    permission to publish another service's event. Each error shows the line in the file and the
    most similar name. The check needs all contracts, so name their modules by --contracts.
    Contracts that no service may call or publish are listed on standard error.
    """
    known = known_contracts(contracts or [])
    grants = load_grants(file, known.contracts)
    if as_json:
        print_json(to_json(grants, known.contracts), compact=True)
        return
    show(grants, known, table_console())
    for note in list_ungranted(grants, known.contracts):
        say(f"note: {note}")


def list_types(contracts: Sequence[Contract], verb: Verb, permission: str) -> list[str]:
    """Return the types of the contracts that a permission allows a service to use.

    With the verb `call` these are requests and jobs. With the other verbs these are events.
    """
    return sorted(
        contract.type
        for contract in contracts
        if contract.permission == permission and (contract.kind == "event") == (verb != "call")
    )


def to_json(grants: Grants, contracts: Sequence[Contract]) -> dict[str, Any]:
    """Return the grants as JSON: the permissions with their types, and the operators' rights."""
    services = {
        service: {
            **{
                verb: {
                    permission: list_types(contracts, verb, permission)
                    for permission in sorted(getattr(rights, verb))
                }
                for verb in VERBS
            },
            "control": sorted(rights.control),
            "jobs": sorted(rights.jobs),
        }
        for service, rights in sorted(grants.services.items())
    }
    return {
        "services": services,
        "operators": {
            operator: sorted(operations)
            for operator, operations in sorted(grants.operators.items())
        },
    }


def show(grants: Grants, known: Known, console: Console) -> None:
    """Print a row for each permission. On a narrow console the types are below the permission."""
    rows = list(table_rows(grants, known))
    table = build_table(("service", "may", "permission", "types"), rows)
    if not fits(table, console):
        narrow_rows = [
            (service, verb, "\n  ".join([permission, *types.splitlines()]))
            for service, verb, permission, types in rows
        ]
        table = build_table(("service", "may", "permission, types"), narrow_rows)
    console.print(table)
    console.print(f"\n{known.looked_at()}", style="dim", highlight=False)


def table_rows(grants: Grants, known: Known) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows: service or operator, verb, permission, and the types that it allows."""
    for service, rights in sorted(grants.services.items()):
        granted = [
            (verb, permission) for verb in VERBS for permission in sorted(getattr(rights, verb))
        ]
        for verb, permission in granted:
            types = list_types(known.contracts, verb, permission)
            yield service, verb, permission, "\n".join(types)
        for right in sorted(rights.control):
            yield service, "control", right, "(live services)"
        for right in sorted(rights.jobs):
            yield service, "jobs", right, "(jobs of other submitters)"
        if not granted and not rights.control and not rights.jobs:
            yield service, "-", "-", "nothing"
    for operator, operations in sorted(grants.operators.items()):
        yield operator, "operate", "\n".join(sorted(operations)) or "-", "(operator)"


def build_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table that wraps long names instead of cutting them."""
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*row)
    return table


def list_ungranted(grants: Grants, contracts: Sequence[Contract]) -> list[str]:
    """Return a note for each contract that no service may call or publish.

    Either this is intended, or a line is missing in the grants file.
    """
    called = frozenset[str]().union(*(rights.call for rights in grants.services.values()))
    published = frozenset[str]().union(*(rights.publish for rights in grants.services.values()))
    return [
        f"no service may {'publish' if contract.kind == 'event' else 'call'} {contract.type} "
        f"({contract.permission})"
        for contract in contracts
        if contract.permission not in (published if contract.kind == "event" else called)
    ]
