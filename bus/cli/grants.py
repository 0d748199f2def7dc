"""`bus grants`: who may do what, by a file of grants."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bus.cli.loading import Known, known_contracts
from bus.cli.options import Contracts
from bus.cli.output import fits, print_json, say, table_console
from bus.contracts.contract import Contract
from bus.security.grants import VERBS, Grants, Verb
from bus.security.grants_file import load_grants

__all__ = ["command"]

command = typer.Typer(
    no_args_is_help=True, help="Check a file of grants, and show who may do what."
)


@command.callback()
def group() -> None:
    r"""Check a file of grants, and show who may do what.

    The file is TOML, with a table for each service and lists of permissions in it: \[services.reader] call = \["library.find"]; beside
    call there are publish and consume. `bus contracts show TYPE` tells a contract's permission.
    """


@command.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", envvar="BUS_GRANTS", show_default=False, help="Such as grants.toml."
        ),
    ],
    *,
    contracts: Contracts = None,
    as_json: Annotated[bool, typer.Option("--json", help="On one line, for programs.")] = False,
) -> None:
    """Check grants against the contracts that are known here, and show who may do what.

    A permission that no contract has, a service that nobody knows, and an event that another service than its owner would
    publish are errors, each with its line and the nearest name. The contracts have to be all that there are: name their
    modules by --contracts. What nobody has been granted is told on standard error.
    """
    known = known_contracts(contracts or [])
    grants = load_grants(file, known.contracts)
    if as_json:
        print_json(as_value(grants, known.contracts), compact=True)
        return
    show(grants, known, table_console())
    for each in nobodys(grants, known.contracts):
        say(f"note: {each}")


def types(contracts: Sequence[Contract], verb: Verb, permission: str) -> list[str]:
    """What a granted permission opens: types of requests and jobs, or of events."""
    return sorted(
        each.type
        for each in contracts
        if each.permission == permission and (each.kind == "event") == (verb != "call")
    )


def as_value(grants: Grants, contracts: Sequence[Contract]) -> dict[str, Any]:
    """For programs: by service and verb the permissions, each with the types that it opens; by operator what he may do."""
    services = {
        service: {
            verb: {each: types(contracts, verb, each) for each in sorted(getattr(rights, verb))}
            for verb in VERBS
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
    """A line a permission; on a narrow screen what it opens stands below it."""
    found = list(rows(grants, known))
    table = tabled(("service", "may", "permission", "which is"), found)
    if not fits(table, console):
        below = [
            (service, may, "\n  ".join([permission, *which.splitlines()]))
            for service, may, permission, which in found
        ]
        table = tabled(("service", "may", "permission, and which it is"), below)
    console.print(table)
    console.print(f"\n{known.looked_at()}", style="dim", highlight=False)


def rows(grants: Grants, known: Known) -> Iterator[tuple[str, str, str, str]]:
    """Who, may do what, by which permission, and what that opens."""
    for service, rights in sorted(grants.services.items()):
        held = [(verb, each) for verb in VERBS for each in sorted(getattr(rights, verb))]
        for verb, permission in held:
            yield service, verb, permission, "\n".join(types(known.contracts, verb, permission))
        if not held:
            yield service, "-", "-", "nothing"
    for operator, operations in sorted(grants.operators.items()):
        yield operator, "operate", "\n".join(sorted(operations)) or "-", "an operator's"


def tabled(headings: Sequence[str], found: Iterable[Sequence[str]]) -> Table:
    """Rows below headings; a name that is too long is folded and never cut."""
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in found:
        table.add_row(*row)
    return table


def nobodys(grants: Grants, contracts: Sequence[Contract]) -> list[str]:
    """What nobody may call or publish: that can be meant, or a line that is missing."""
    called = frozenset[str]().union(*(rights.call for rights in grants.services.values()))
    published = frozenset[str]().union(*(rights.publish for rights in grants.services.values()))
    return [
        f"nobody may {'publish' if each.kind == 'event' else 'call'} {each.type} ({each.permission})"
        for each in contracts
        if each.permission not in (published if each.kind == "event" else called)
    ]
