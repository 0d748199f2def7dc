"""Commands of `bus dead` that move or delete dead letters."""

from typing import Annotated

import typer

from bus.cli.audit import audited, who
from bus.cli.dead.abbreviations import browse_selected, complete_selection
from bus.cli.dead.messages import (
    count_letters,
    describe_unmatched,
    progress,
    raise_failure,
    report_purged,
    report_replayed,
    summary,
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
    build_selection,
)
from bus.cli.dead.queues import run
from bus.cli.options import duration, finite
from bus.cli.output import say
from bus.messaging.ports.transport import Transport
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

__all__ = ["purge_", "replay_"]


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
        bool,
        typer.Option("--all", help="Required if no id, filter, queue or service is given."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all selected dead letters, and move none.")
    ] = False,
    extend: Annotated[
        float | None,
        typer.Option(
            parser=duration,
            metavar="TIME",
            show_default=False,
            help="Let expired messages expire only after this time from now: 90s, 15m, 2h, 7d.",
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(
            "--reason",
            metavar="TEXT",
            show_default=False,
            help="The reason for --extend. It is stored in the messages.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            callback=finite,
            metavar="N",
            show_default=False,
            help="Replay at most N messages per second.",
        ),
    ] = None,
    window: Annotated[
        int,
        typer.Option(
            min=1, max=1000, metavar="N", help="Keep at most N messages in flight at a time."
        ),
    ] = WINDOW,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Move dead letters back to their work queues. Services then handle the messages again.

    Each message starts at attempt 1, and its headers record the time and the user of the replay. A
    message is moved only to the work queue from which it was dead-lettered, not to the queues of
    other subscribers. The dead letter is deleted when the broker has confirmed the copy. If a
    replay is killed, no message is lost. However, up to --window messages can be in the work queue
    and still be in the dead-letter queue. Expired messages are moved only with --extend. A message
    that is dead-lettered again during the replay is not moved a second time.

    With --extend an operator signs each message. This requires --reason and
    BUS_OPERATOR_KEY, or BUS_KEY with BUS_AUTH=dev. With BUS_AUTH=off nothing is signed, and no
    reason or key is required. The expiry of a message can be extended at most three times.
    """
    selection = build_selection(
        ids=ids, types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    require_selection(selection, everything or bool(queue) or bool(service))
    settings = load_settings()
    results: dict[str, ReplayReport] = {}

    async def work(transport: Transport, names: list[str]) -> None:
        nonlocal selection
        selection = await complete_selection(transport, names, selection, scan=scan)
        countersign = (
            await operator_signer(settings, actor=who(), reason=reason)
            if extend is not None
            else None
        )
        how = ReplayOptions(
            by=who(),
            extend=extend,
            countersign=countersign,
            rate=rate,
            window=window,
            most=scan,
            dry_run=dry_run,
        )
        for name in names:
            with progress(name, await transport.depth(name), results) as update:
                await replay(transport, name, selection, how=how, on_progress=update)
            if results[name].failure is not None:
                break

    try:
        run(work, service, queue)
    finally:  # Write the audit record even if the replay was interrupted.
        moved = {
            name: report.replayed
            for name, report in results.items()
            if report.replayed or report.uncertain
        }
        if moved and not dry_run:
            audited(
                "replayed",
                **moved,
                **({"extended": extend, "reason": reason} if extend is not None else {}),
            )
    report_replayed(results, selection, dry_run=dry_run, as_json=as_json)


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
        bool, typer.Option("--all", help="Required if no id and no filter is given.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without confirmation.")] = False,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters permanently.

    The command shows the number of selected dead letters and asks for confirmation. It deletes
    exactly these dead letters, and no dead letters that arrive later.
    """
    selection = build_selection(
        ids=ids, types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    require_selection(selection, everything)
    found = run(
        lambda transport, names: browse_selected(transport, names, selection, scan=scan),
        service,
        queue,
    )
    selection, browse_result = found.selection, found.result
    if not browse_result.letters:
        say(summary(browse_result, 0, selection))
        report_purged({}, browse_result, as_json=as_json)
        return
    counts = {
        name: sum(letter.dead_queue == name for letter in browse_result.letters)
        for name in sorted({letter.dead_queue for letter in browse_result.letters})
    }
    for name, count in counts.items():
        say(f"{name}: {count}")
    if unmatched := describe_unmatched(selection, browse_result.seen):
        say(unmatched.removeprefix("; "))
    if not yes:
        typer.confirm(
            f"Delete {count_letters(len(browse_result.letters))} permanently?", abort=True, err=True
        )
    counted = Selection(keys=frozenset(letter.key for letter in browse_result.letters))

    results: dict[str, PurgeReport] = {}

    async def work(transport: Transport, names: list[str]) -> None:
        for name in names:
            with progress(name, counts[name], results) as update:
                await purge(transport, name, counted, most=scan, on_progress=update)

    try:
        run(work, None, list(counts))
    finally:  # Write the audit record even if the purge was interrupted.
        audited("purged", **{name: report.deleted for name, report in results.items()})
    report_purged(results, browse_result, as_json=as_json)
    raise_failure(results.values())


def require_selection(selection: Selection, selected: bool) -> None:
    """Raise an error if `selected` is False and the selection has no filter."""
    if selection.everything and not selected:
        raise typer.BadParameter(
            "no dead letters are selected. Pass ids, filters such as --type or --since, or --all."
        )
