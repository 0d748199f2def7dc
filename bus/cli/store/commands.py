"""Commands of `bus store`. They work on the database in BUS_STORE, without a broker."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import typer

from bus.cli.errors import exit_code
from bus.cli.options import AsJson
from bus.cli.output import print_json, say, table_console
from bus.cli.services.commands import check_service
from bus.cli.store.lines import check_lines, prune_text, reencrypt_lines, upgrade_text
from bus.errors import ConfigurationError
from bus.messaging.ports.store_administrator import StoreAdministrator
from bus.runtime.jobs.pruning_loop import retention_of
from bus.runtime.key_owner import find_key_owners
from bus.runtime.security import cipher_from_settings
from bus.settings import load_settings
from bus.storage.configured_store import store_administration

__all__ = ["command"]

T = TypeVar("T")
command = typer.Typer(
    no_args_is_help=True, help="Create, check, prune and re-encrypt the durable store of a service."
)
Service = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="SERVICE",
        show_default=False,
        help="The service that owns the store. Default: the owner of BUS_KEY, or any service.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what the command would do.")]


@command.command("upgrade")
def upgrade_(*, service: Service = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Create the tables in BUS_STORE, or change them to this version of the bus.

    The command creates the file of SQLite. A database of PostgreSQL must exist. Run it before the
    new version of a service starts. Workers of the version before continue. A second
    upgrade changes nothing, and two at the same time wait for each other.
    """
    report = run(service, lambda store: store.upgrade(is_dry=dry_run))
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run}, compact=True)
    else:
        say(upgrade_text(report, is_dry=dry_run))


@command.command("check")
def check_(*, service: Service = None, as_json: AsJson = False) -> None:
    """Show where the store is, its id, owner, revision, size and jobs, and its problems.

    Each problem has the command that corrects it. The exit code is 78 if there is one.
    """
    report = run(service, lambda store: store.check())
    if as_json:
        print_json(asdict(report), compact=True)
    else:
        console = table_console()
        for line in check_lines(report):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    if report.problems:
        raise typer.Exit(exit_code(ConfigurationError(report.problems[0])))


@command.command("prune")
def prune_(*, service: Service = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove payloads and results that are older than the retention, at once.

    Running services do this themselves about every five minutes. The retention is
    BUS_RETAIN_SUCCEEDED for succeeded and cancelled jobs, and BUS_RETAIN_FAILED for failed jobs.
    The id and the final state stay until no copy of the message can be alive.
    """
    retention = retention_of(load_settings())
    report = run(service, lambda store: store.prune(retention, is_dry=dry_run))
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run}, compact=True)
    else:
        say(prune_text(report, is_dry=dry_run))


@command.command("reencrypt")
def reencrypt_(
    *, service: Service = None, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Encrypt the stored messages with the first key in BUS_ENCRYPTION_KEYS.

    Run it after all services encrypt with the new key, and before the old key is deleted. Services
    can run during the command. With --dry-run it only counts the messages by the key that they
    need.
    """
    cipher = cipher_from_settings(load_settings())
    report = run(service, lambda store: store.reencrypt(cipher, is_dry=dry_run))
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run}, compact=True)
    else:
        console = table_console()
        for line in reencrypt_lines(report, is_dry=dry_run):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    if report.unreadable:
        raise typer.Exit(1)


def run(service: str | None, work: Callable[[StoreAdministrator], Awaitable[T]]) -> T:
    """Return the result of a function on the store in the settings.

    Args:
        service: Service that must own the store. None: the owner of `BUS_KEY`, or any service.
        work: Function to run.
    """
    if service is not None:
        check_service(service)
    settings = load_settings()

    async def main() -> Any:
        owner = service
        if owner is None:
            owners = await find_key_owners(settings)
            owner = owners[0] if len(owners) == 1 else None
        store = store_administration(settings, owner)
        try:
            return await work(store)
        finally:
            await store.close()

    result: T = asyncio.run(main())
    return result
