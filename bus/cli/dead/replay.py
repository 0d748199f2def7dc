"""The commands that move or delete dead letters."""

from pathlib import Path
from typing import Annotated

import typer

from bus.cli.audit import audited, who
from bus.cli.dead.export_file import read
from bus.cli.dead.messages import (
    end_with,
    letters_of,
    progress,
    summary,
    tell_purged,
    tell_replayed,
    unmet,
)
from bus.cli.dead.options import (
    SCAN,
    AsJson,
    Codes,
    Correlation,
    Ids,
    Queues,
    Scan,
    Service,
    Since,
    Types,
    Until,
    selected,
)
from bus.cli.dead.queues import look_everywhere, run
from bus.cli.options import duration
from bus.cli.output import print_json, say
from bus.errors import BusError, NotFound, ResourceExhausted
from bus.messaging.ports.transport import Accepted, Transport
from bus.messaging.topology.addresses import dead_letter_address
from bus.operations.dead_letters import (
    PurgeReport,
    ReplayOptions,
    ReplayReport,
    Selection,
    purge,
    replay,
)
from bus.operations.dead_letters.replay import WINDOW
from bus.runtime.security import operator_signer
from bus.settings import load_settings

__all__ = ["import_", "purge_", "replay_"]

SEND_TIMEOUT = 10.0
"""Seconds for the broker's confirm."""


def replay_(
    ids: Ids = None,
    *,
    service: Service = None,
    queue: Queues = None,
    type_: Types = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All, where nothing else says which.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, move nothing.")
    ] = False,
    extend: Annotated[
        float | None,
        typer.Option(
            parser=duration,
            metavar="TIME",
            show_default=False,
            help="Give what has expired so much time: 90s, 15m, 2h, 7d.",
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(
            "--reason",
            metavar="TEXT",
            show_default=False,
            help="Why they get more time; it stays with them.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="N", show_default=False, help="At most so many a second."),
    ] = None,
    window: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Under way at a time.")
    ] = WINDOW,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Move dead letters back into their work queues, to be handled anew.

    Each starts at attempt 1, with who replayed it and when in its headers. It goes to the queue that gave it up, and to no
    other subscriber. It is deleted here when the broker has confirmed it there: killed at any point, a replay loses
    nothing, and leaves at most a window of messages in both places. What has expired stays, unless --extend gives it time.
    What dies again meanwhile is not moved a second time.

    With --extend an operator signs for each: that takes BUS_OPERATOR_KEY and --reason, unless BUS_AUTH is off. A message
    gets more time three times at most.
    """
    wanted = selected(
        ids=ids, types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    demand_a_choice(wanted, everything or bool(queue) or bool(service))
    settings = load_settings()
    results: dict[str, ReplayReport] = {}

    async def work(transport: Transport, names: list[str]) -> None:
        word = (
            await operator_signer(settings, actor=who(), reason=reason)
            if extend is not None
            else None
        )
        how = ReplayOptions(
            by=who(),
            extend=extend,
            countersign=word,
            rate=rate,
            window=window,
            most=scan,
            dry_run=dry_run,
        )
        for name in names:
            with progress(name, await transport.depth(name), results) as update:
                await replay(transport, name, wanted, how=how, on_progress=update)
            if results[name].failure is not None:
                break

    try:
        run(work, service, queue)
    finally:  # interrupted, too
        moved = {
            name: each.replayed for name, each in results.items() if each.replayed or each.uncertain
        }
        if moved and not dry_run:
            audited(
                "replayed",
                **moved,
                **({"extended": extend, "reason": reason} if extend is not None else {}),
            )
    tell_replayed(results, wanted, dry_run=dry_run, as_json=as_json)


def purge_(
    ids: Ids = None,
    *,
    service: Service = None,
    queue: Queues = None,
    type_: Types = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All, where no filter says which.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good: exactly those that were counted when it asks."""
    wanted = selected(
        ids=ids, types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    demand_a_choice(wanted, everything)
    found = run(
        lambda transport, names: look_everywhere(transport, names, wanted, scan=scan),
        service,
        queue,
    )
    if not found.letters:
        say(summary(found, 0, wanted))
        tell_purged({}, found, as_json=as_json)
        return
    counts = {
        name: sum(each.dead_queue == name for each in found.letters)
        for name in sorted({each.dead_queue for each in found.letters})
    }
    for name, count in counts.items():
        say(f"{name}: {count}")
    if mistyped := unmet(wanted, found.seen):
        say(mistyped.removeprefix("; "))
    if not yes:
        typer.confirm(f"Delete {letters_of(len(found.letters))} for good?", abort=True, err=True)
    exactly = Selection(keys=frozenset(each.key for each in found.letters))

    results: dict[str, PurgeReport] = {}

    async def work(transport: Transport, names: list[str]) -> None:
        for name in names:
            with progress(name, counts[name], results) as update:
                await purge(transport, name, exactly, most=scan, on_progress=update)

    try:
        run(work, None, list(counts))
    finally:  # interrupted, too
        audited("purged", **{name: each.deleted for name, each in results.items()})
    tell_purged(results, found, as_json=as_json)
    end_with(results.values())


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `bus dead export` wrote.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Put exported dead letters back among the dead letters of their queues. Those that are still there will be there twice.

    From there `bus dead replay` takes them. The whole file is read before the first is sent.
    """
    messages = list(read(file))

    async def work(transport: Transport, _: list[str]) -> int:
        sent = 0
        for queue, message in messages:
            outcome = await transport.send(
                message, dead_letter_address(queue), timeout=SEND_TIMEOUT
            )
            if not isinstance(outcome, Accepted):
                raise failed_import(queue, outcome.reason, sent)
            sent += 1
        return sent

    sent = run(work, None, [])
    audited("imported", file=str(file.absolute()), letters=sent)
    if as_json:
        print_json({"file": str(file), "letters": sent}, compact=True)
        return
    say(f"put back {letters_of(sent)}")


def demand_a_choice(wanted: Selection, chosen: bool) -> None:
    """What moves or deletes has to be told which."""
    if wanted.everything and not chosen:
        raise typer.BadParameter("say which: ids, filters such as --type or --since, or --all")


def failed_import(queue: str, reason: str, sent: int) -> BusError:
    """Why, and how far it came: who tries again has those twice."""
    came = f"{letters_of(sent)} were put back before" if sent else "nothing was put back"
    if reason == "NO_ROUTE":
        return NotFound(
            f"{queue} has no dead-letter queue here ({came}); start its service, which declares it"
        )
    return ResourceExhausted(f"{queue}: {reason} ({came})")
