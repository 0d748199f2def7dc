"""`bus topology`: the topology that routers require, compared with the broker's."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from bus.cli.loading import known_contracts, load_router
from bus.cli.options import Contracts
from bus.cli.output import harmless, print_json, say, suppress_library_logs
from bus.errors import InvalidArgument
from bus.operations.topology.apply import apply as apply_topology
from bus.operations.topology.apply import plan as plan_topology
from bus.operations.topology.definitions import definitions
from bus.operations.topology.diff import Plan
from bus.operations.topology.migrate import MigrationProgress
from bus.operations.topology.migrate import migrate as migrate_queue
from bus.operations.topology.permissions import (
    ADMINISTRATOR,
    broker_users,
    check_consume_grants,
    permissions,
    users,
)
from bus.operations.topology.required import RequiredTopology
from bus.operations.topology.user_passwords import read_passwords
from bus.operations.topology.verify import verify as verify_topology
from bus.runtime.requirements import required_by
from bus.security.grants_file import load_grants
from bus.settings import Settings, load_settings

__all__ = ["command"]

DIFFERENCES_EXIT_CODE = 2
"""Exit code if something is to be done."""
COLOURS = {
    "missing": "yellow",
    "different": "red",
    "unsafe": "red",
    "unfinished": "red",
    "superfluous": "dim",
}

Routers = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE:ROUTER",
        show_default=False,
        help="For example workers.transcription:router.",
    ),
]
ManagementUrl = Annotated[
    str | None,
    typer.Option(
        "--management-url",
        metavar="URL",
        show_default=False,
        help="The management API. Default: BUS_MANAGEMENT_URL, or the usual port.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on one line, for programs.")]

command = typer.Typer(
    no_args_is_help=True,
    help="Compare the required topology with the broker's, and create missing objects.",
)


@command.command()
def plan(
    routers: Routers, *, management_url: ManagementUrl = None, as_json: AsJson = False
) -> None:
    """Show the differences between the required topology and the broker's, one a line.

    Nothing is changed. A line begins with one of these words. missing: apply creates the object.
    different: the object exists with other properties, which cannot be changed in place; for a
    queue, migrate creates it again. unsafe: a policy could lose messages. unfinished: a migration
    was interrupted. superfluous: the object is named like those of these services, and they do not
    require it; no command deletes it.

    Exit code 0: nothing is to be done. 2: there are differences; superfluous objects do not count.
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

    Nothing that exists is changed or deleted. A second run changes nothing. Exit code 0: the broker
    has the required topology. 2: differences remain, such as a queue that cannot be changed in
    place; see migrate.
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
    """Check that the broker has the required topology, for services that declare nothing.

    With BUS_MANAGEMENT_URL or --management-url the command finds the same differences as plan.
    Without it the command uses AMQP with the service's own rights. It then finds missing exchanges
    and queues, and reports what it could not check. Exit codes: those of plan.
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
    """Print the definitions.json that RabbitMQ imports; the command does not connect to a broker.

    The file has exchanges, queues and bindings in sorted order, for the administrator of the
    broker. With BUS_TOPOLOGY=verify request queues do not expire, because the services may not
    create them again.
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
            help="The permissions of the services, such as grants.toml.",
        ),
    ],
    passwords: Annotated[
        Path | None,
        typer.Option(
            "--passwords",
            metavar="FILE",
            show_default=False,
            help='The passwords of the users: TOML, with a line for each user: name = "…".',
        ),
    ] = None,
    certificates: Annotated[
        bool,
        typer.Option(
            "--certificates",
            help="Create users without a password, which log in by a certificate or a token.",
        ),
    ] = False,
    contracts: Contracts = None,
    vhost: Annotated[
        str, typer.Option("--vhost", metavar="NAME", help="The virtual host that the file names.")
    ] = "/",
) -> None:
    """Print definitions with a broker user for each service, limited to the rights of its grants.

    The command does not connect to a broker. It prints the topology as export does, and users,
    permissions and topic permissions. The services then run with BUS_TOPOLOGY=verify, each with its
    own user; only the user bus.topology declares and binds. Name the routers of all services.
    Without --passwords and --certificates the users are left out, and must exist before the file is
    imported.
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


@command.command()
def migrate(
    router: Annotated[
        str, typer.Argument(metavar="MODULE:ROUTER", help="The router that requires the queue.")
    ],
    queue: Annotated[
        str, typer.Argument(metavar="QUEUE", help="The queue that exists with other arguments.")
    ],
    *,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            min=0,
            metavar="SECONDS",
            show_default=False,
            help="Start although the queue has consumers, and wait until they have stopped.",
        ),
    ] = None,
    management_url: ManagementUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create a queue again with the arguments that its router requires, and keep its messages.

    The messages, and those published during the migration, wait in a migration queue. Each message
    is copied, the copy is confirmed, and only then is the original removed. The order is kept. If
    the command is killed at any point, run it again to continue. A message that can then exist
    twice has the header "redelivered". The command refuses a queue that has consumers: stop the
    workers first.
    """
    settings = override_settings(management_url)
    status_line = Console(stderr=True).status("reading the broker's state")
    with status_line as status, suppress_library_logs():
        done = asyncio.run(
            migrate_queue(
                queue,
                require([router], settings),
                settings,
                wait=wait,
                report=ProgressDisplay(status),
            )
        )
    if as_json:
        print_json(
            {
                "queue": queue,
                "done": done is not None,
                "moved": done.moved if done else 0,
                "again": done.redelivered if done else 0,
            },
            compact=True,
        )
    elif done is None:
        say(f"{queue} already has the required arguments; nothing to do")
    else:
        say(
            f"{queue} was created again; {done.moved} messages were moved back, "
            f"{done.redelivered} may exist twice"
        )


class ProgressDisplay:
    """Display of a migration: a line for each step, and the counts beside a spinner."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._step = ""

    def __call__(self, progress: MigrationProgress) -> None:
        """Show `progress`."""
        if progress.step != self._step:
            self._step = progress.step
            # The line goes to the spinner's own console: another console would write over it.
            self._status.console.print(
                harmless(progress.step), markup=False, highlight=False, soft_wrap=True
            )
        counts = (
            f": {progress.moved} of {max(progress.total, progress.moved)}" if progress.moved else ""
        )
        self._status.update(f"{harmless(progress.step)}{counts}")


def override_settings(management_url: str | None) -> Settings:
    """Return the settings, with the option's address if it is given."""
    return load_settings(management_url=management_url) if management_url else load_settings()


def require(targets: Sequence[str], settings: Settings) -> RequiredTopology:
    """Return the topology that the named routers require."""
    return required_by([load_router(target) for target in targets], settings)


def exit_with(comparison: Plan, targets: Sequence[str], *, as_json: bool) -> None:
    """Print a plan, and exit with its exit code."""
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
    console = Console()
    for difference in comparison.differences:
        console.print(
            harmless(str(difference)),
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
        say("nothing is to be done")
