"""`bus topology`: what routers need in the broker, beside what it has."""

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
from bus.operations.topology.apply import apply as make
from bus.operations.topology.apply import plan as compared
from bus.operations.topology.definitions import definitions
from bus.operations.topology.diff import Plan
from bus.operations.topology.migrate import MigrationProgress
from bus.operations.topology.migrate import migrate as remade
from bus.operations.topology.permissions import (
    ADMINISTRATOR,
    broker_users,
    check_consume_grants,
    permissions,
    users,
)
from bus.operations.topology.required import RequiredTopology
from bus.operations.topology.user_passwords import read_passwords
from bus.operations.topology.verify import verify as verified
from bus.runtime.requirements import required_by
from bus.security.grants_file import load_grants
from bus.settings import Settings, load_settings

__all__ = ["command"]

DIFFERENCES = 2
"""The exit code where something is to be done."""
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
        help="Instead of BUS_MANAGEMENT_URL; else the usual port is tried.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="On one line, for programs.")]

command = typer.Typer(
    no_args_is_help=True,
    help="Compare what routers need in the broker with what it has, and make it so.",
)


@command.command()
def plan(
    routers: Routers, *, management_url: ManagementUrl = None, as_json: AsJson = False
) -> None:
    """Show what routers need and the broker has not, a line each; nothing is changed.

    missing: apply makes it. different: it cannot be changed in place; migrate makes a queue anew. unsafe: a policy would
    lose messages. unfinished: a migration has not ended. superfluous: it is named as these services name theirs, and they
    do not need it; nothing deletes it.

    Exit code 0: nothing is to be done. 2: something is; what is superfluous does not count.
    """
    settings = configured(management_url)
    end(asyncio.run(compared(wanted(routers, settings), settings)), routers, as_json=as_json)


@command.command()
def apply(
    routers: Routers, *, management_url: ManagementUrl = None, as_json: AsJson = False
) -> None:
    """Make what is missing, over AMQP; show what is left.

    Nothing that exists is changed or deleted. Running it again does nothing. Exit code 0: the broker has all that is
    needed. 2: something is left, such as a queue that cannot be changed in place; see migrate.
    """
    settings = configured(management_url)
    with suppress_library_logs():
        done = asyncio.run(make(wanted(routers, settings), settings))
    for each in done.before.having("missing"):
        if each not in done.after.differences:
            say(f"made {each.what} {each.name}")
    end(done.after, routers, as_json=as_json)


@command.command()
def verify(
    routers: Routers, *, management_url: ManagementUrl = None, as_json: AsJson = False
) -> None:
    """Check that the broker has what routers need, for teams whose broker is managed by others; nothing is declared.

    With BUS_MANAGEMENT_URL or --management-url it finds all that plan finds. Without, it asks over AMQP with a service's own
    rights, which tells missing exchanges and queues, and says what it could not see. Exit codes as of plan.
    """
    settings = configured(management_url)
    with suppress_library_logs():
        found = asyncio.run(verified(wanted(routers, settings), settings))
    end(found, routers, as_json=as_json)


@command.command()
def export(
    routers: Routers,
    *,
    vhost: Annotated[
        str, typer.Option("--vhost", metavar="NAME", help="The virtual host that the file names.")
    ] = "/",
) -> None:
    """Print the definitions.json that RabbitMQ imports; no broker is asked.

    Exchanges, queues and bindings, sorted, for whoever manages the broker. With BUS_TOPOLOGY=verify request queues do not
    expire, since the services may not make them anew.
    """
    print_json(definitions(wanted(routers, load_settings()).topology, vhost=vhost), compact=False)


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
            help="Who may do what: grants.toml.",
        ),
    ],
    passwords: Annotated[
        Path | None,
        typer.Option(
            "--passwords",
            metavar="FILE",
            show_default=False,
            help='The users\' passwords, TOML with a line each: name = "…".',
        ),
    ] = None,
    certificates: Annotated[
        bool,
        typer.Option(
            "--certificates",
            help="Users that no password lets in: they come with a certificate or a token.",
        ),
    ] = False,
    contracts: Contracts = None,
    vhost: Annotated[
        str, typer.Option("--vhost", metavar="NAME", help="The virtual host that the file names.")
    ] = "/",
) -> None:
    """Print definitions with a user for each service, who can do no more than its grants say; no broker is asked.

    What export prints, and users, permissions and topic permissions. The services then run with BUS_TOPOLOGY=verify, each
    with its own user; only the user bus.topology declares and binds. Name the routers of all services. Without --passwords
    and --certificates the users are left out, and have to exist before the file is imported.
    """
    if passwords and certificates:
        raise InvalidArgument(
            "--passwords or --certificates: users who come with a certificate have no password"
        )
    served = [load_router(each) for each in routers]
    known = known_contracts(contracts or []).contracts
    granted = load_grants(grants, known)
    for router in served:
        check_consume_grants(router.name, router.contracts, granted)
    found = broker_users(granted, known, [router.name for router in served])
    needed = required_by(served, load_settings(topology="verify")).topology
    made = (
        {"users": users(found, read_passwords(passwords) if passwords else None)}
        if passwords or certificates
        else {}
    )
    print_json(
        {**definitions(needed, vhost=vhost), **made, **permissions(found, vhost=vhost)},
        compact=False,
    )
    if not made:
        say(f"the users have to exist: {ADMINISTRATOR}, {', '.join(each.name for each in found)}")


@command.command()
def migrate(
    router: Annotated[str, typer.Argument(metavar="MODULE:ROUTER", help="Whose queue.")],
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
            help="Begin while it is consumed, and wait until nobody does.",
        ),
    ] = None,
    management_url: ManagementUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a queue anew with the arguments that its router needs, its messages kept.

    They wait in a holding queue meanwhile, and so does what is published. Each is copied, confirmed and only then taken
    away, in order. Killed at any point it goes on when it is run again; a message that may be there twice then says so
    in its header "redelivered". It is refused while anybody consumes the queue: stop the workers first.
    """
    settings = configured(management_url)
    with Console(stderr=True).status("looking") as status, suppress_library_logs():
        done = asyncio.run(
            remade(queue, wanted([router], settings), settings, wait=wait, report=Shown(status))
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
        say(f"{queue} is as it is needed; nothing to do")
    else:
        say(
            f"{queue} is made anew; {done.moved} messages are back in it, {done.redelivered} may be there twice"
        )


class Shown:
    """A migration's progress: each step a line, and what moves beside the spinner."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._step = ""

    def __call__(self, progress: MigrationProgress) -> None:
        """Show it."""
        if progress.step != self._step:
            self._step = progress.step
            # By the spinner's own console: another would write into its line.
            self._status.console.print(
                harmless(progress.step), markup=False, highlight=False, soft_wrap=True
            )
        counts = (
            f": {progress.moved} of {max(progress.total, progress.moved)}" if progress.moved else ""
        )
        self._status.update(f"{harmless(progress.step)}{counts}")


def configured(management_url: str | None) -> Settings:
    """The settings, with the option's address where it is given."""
    return load_settings(management_url=management_url) if management_url else load_settings()


def wanted(targets: Sequence[str], settings: Settings) -> RequiredTopology:
    """What the routers that are named need."""
    return required_by([load_router(each) for each in targets], settings)


def end(found: Plan, targets: Sequence[str], *, as_json: bool) -> None:
    """Show a plan, and exit with what it says."""
    if as_json:
        print_json(
            {
                "clean": found.clean,
                "differences": [asdict(each) for each in found.differences],
                "unseen": found.not_read,
            },
            compact=True,
        )
    else:
        show(found, targets)
    raise typer.Exit(0 if found.clean else DIFFERENCES)


def show(found: Plan, targets: Sequence[str]) -> None:
    """Differences on standard output, what they mean on standard error."""
    console = Console()
    for each in found.differences:
        console.print(
            harmless(str(each)),
            style=COLOURS[each.verdict],
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for unseen in found.not_read:
        say(f"not looked at: {unseen}")
    for name in dict.fromkeys(
        each.name for each in found.having("different", "unfinished") if each.what == "queue"
    ):
        say(
            f"to change it: bus topology migrate {targets[0] if len(targets) == 1 else 'MODULE:ROUTER'} {name}"
        )
    if found.clean:
        say("nothing is to be done")
