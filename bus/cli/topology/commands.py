"""Commands of `bus topology` that compare, create and export the required topology."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bus.cli.loading import known_contracts, load_router
from bus.cli.options import AsJson, Contracts
from bus.cli.output import EscapingConsole, print_json, say, suppress_library_logs
from bus.cli.topology.migrate import migrate
from bus.cli.topology.options import (
    DIFFERENCES_EXIT_CODE,
    ManagementUrl,
    Routers,
    override_settings,
    require,
)
from bus.cli.topology.prune import prune
from bus.errors import InvalidArgument
from bus.operations.topology.apply import apply as apply_topology
from bus.operations.topology.apply import plan as plan_topology
from bus.operations.topology.definitions import definitions
from bus.operations.topology.diff import Plan
from bus.operations.topology.permissions import (
    ADMINISTRATOR,
    broker_users,
    check_consume_grants,
    permissions,
    users,
)
from bus.operations.topology.user_passwords import read_passwords
from bus.operations.topology.verify import verify as verify_topology
from bus.runtime.requirements import required_by
from bus.security.grants_file import load_grants
from bus.settings import load_settings

__all__ = ["command"]

COLOURS = {
    "missing": "yellow",
    "different": "red",
    "unsafe": "red",
    "unfinished": "red",
    "superfluous": "dim",
}

command = typer.Typer(
    no_args_is_help=True,
    help="Compare the required topology with the broker's, and create missing objects.",
)


@command.command()
def plan(
    routers: Routers, *, management_url: ManagementUrl = None, as_json: AsJson = False
) -> None:
    """Show the differences between the required topology and the broker's, one per line.

    The command changes nothing. A line begins with one of these words. missing: apply creates the
    object. different: the object exists with other properties, which cannot be changed in place;
    migrate recreates a queue. unsafe: a policy could cause the loss of messages. unfinished: a
    migration was interrupted. superfluous: the object's name belongs to one of these services, but
    the service does not require the object; prune deletes it.

    Exit code 0: there are no differences, or only superfluous objects. 2: there are other
    differences.
    """
    settings = override_settings(management_url)
    exit_with(
        asyncio.run(plan_topology(require(routers, settings), settings)), routers, as_json=as_json
    )


@command.command()
def apply(
    routers: Routers, *, management_url: ManagementUrl = None, as_json: AsJson = False
) -> None:
    """Create missing exchanges, queues and bindings over AMQP, and show the remaining differences.

    The command does not change or delete existing objects. A second run changes nothing. Exit code
    0: the broker has the required topology. 2: differences remain, for example a queue that cannot
    be changed in place. The command migrate recreates such a queue.
    """
    settings = override_settings(management_url)
    with suppress_library_logs():
        done = asyncio.run(apply_topology(require(routers, settings), settings))
    for difference in done.before.having("missing"):
        if difference not in done.after.differences:
            say(f"created {difference.what} {difference.name}")
    exit_with(done.after, routers, as_json=as_json)


@command.command()
def verify(
    routers: Routers, *, management_url: ManagementUrl = None, as_json: AsJson = False
) -> None:
    """Check that the broker has the required topology, and change nothing.

    Run this command before you start services with BUS_TOPOLOGY=verify. With BUS_MANAGEMENT_URL or
    --management-url the command finds the same differences as plan. If neither is set, the command
    uses AMQP with the rights of the user in BUS_URL. In this case it finds only missing exchanges
    and queues, and reports the objects that it could not check. The exit codes are the same as for
    plan.
    """
    settings = override_settings(management_url)
    with suppress_library_logs():
        comparison = asyncio.run(verify_topology(require(routers, settings), settings))
    exit_with(comparison, routers, as_json=as_json)


@command.command()
def export(
    routers: Routers,
    *,
    vhost: Annotated[
        str, typer.Option("--vhost", metavar="NAME", help="The virtual host that the file names.")
    ] = "/",
) -> None:
    """Print the topology as a definitions.json, which a broker's administrator can import.

    The command does not connect to a broker. The file has exchanges, queues and bindings in sorted
    order. With BUS_TOPOLOGY=verify request queues do not expire, because the services have no right
    to create them again.
    """
    print_json(definitions(require(routers, load_settings()).topology, vhost=vhost), compact=False)


@command.command(name="definitions")
def access(
    routers: Routers,
    *,
    grants: Annotated[
        Path,
        typer.Option(
            "--grants",
            metavar="FILE",
            envvar="BUS_GRANTS",
            show_default=False,
            help="File with the permissions of the services, such as grants.toml.",
        ),
    ],
    passwords: Annotated[
        Path | None,
        typer.Option(
            "--passwords",
            metavar="FILE",
            show_default=False,
            help='TOML file with the passwords of the users, a line for each user: name = "…".',
        ),
    ] = None,
    certificates: Annotated[
        bool,
        typer.Option(
            "--certificates",
            help="Create users without a password. They log in with a certificate or a token.",
        ),
    ] = False,
    contracts: Contracts = None,
    vhost: Annotated[
        str, typer.Option("--vhost", metavar="NAME", help="The virtual host that the file names.")
    ] = "/",
) -> None:
    """Print definitions with a broker user for each service, limited to the service's grants.

    The command does not connect to a broker. It prints the same topology as export, and in addition
    users, permissions and topic permissions. Name the routers of all services. Run each service
    with BUS_TOPOLOGY=verify and its own user. Only the user bus.topology may declare and bind. If
    neither --passwords nor --certificates is given, the output has no users. In this case the users
    must exist before the file is imported.
    """
    if passwords and certificates:
        raise InvalidArgument(
            "--passwords and --certificates exclude each other: users with a certificate "
            "have no password. Use one of the two options."
        )
    served = [load_router(target) for target in routers]
    all_contracts = known_contracts(contracts or []).contracts
    granted = load_grants(grants, all_contracts)
    for router in served:
        check_consume_grants(router.name, router.contracts, granted)
    service_users = broker_users(granted, all_contracts, [router.name for router in served])
    required = required_by(served, load_settings(topology="verify")).topology
    user_definitions = (
        {"users": users(service_users, read_passwords(passwords) if passwords else None)}
        if passwords or certificates
        else {}
    )
    print_json(
        {
            **definitions(required, vhost=vhost),
            **user_definitions,
            **permissions(service_users, vhost=vhost),
        },
        compact=False,
    )
    if not user_definitions:
        names = ", ".join(user.name for user in service_users)
        say(f"these users must exist before the import: {ADMINISTRATOR}, {names}")


command.command()(migrate)
command.command()(prune)


def exit_with(comparison: Plan, targets: Sequence[str], *, as_json: bool) -> None:
    """Print the comparison, and exit with 0 if it is clean. If not, use `DIFFERENCES_EXIT_CODE`."""
    if as_json:
        print_json(
            {
                "clean": comparison.clean,
                "differences": [asdict(difference) for difference in comparison.differences],
                "unseen": comparison.not_read,
            },
            compact=True,
        )
    else:
        show(comparison, targets)
    raise typer.Exit(0 if comparison.clean else DIFFERENCES_EXIT_CODE)


def show(comparison: Plan, targets: Sequence[str]) -> None:
    """Print the differences on standard output, and the advice on standard error."""
    console = EscapingConsole()
    for difference in comparison.differences:
        console.print(
            str(difference),
            style=COLOURS[difference.verdict],
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for reason in comparison.not_read:
        say(f"not checked: {reason}")
    router = targets[0] if len(targets) == 1 else "MODULE:ROUTER"
    for name in dict.fromkeys(
        difference.name
        for difference in comparison.having("different", "unfinished")
        if difference.what == "queue"
    ):
        say(f"to change the queue: bus topology migrate {router} {name}")
    if comparison.clean:
        say("the broker has the required topology; nothing to do")
