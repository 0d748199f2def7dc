"""Messages that the commands of `bus dead` print about their progress and results."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bus.cli.output import EscapingConsole, print_json, say
from bus.errors import FailedPrecondition
from bus.messaging.suggestions import did_you_mean
from bus.operations.dead_letters import (
    BrowseResult,
    ObservedValues,
    PurgeReport,
    ReplayReport,
    Selection,
)

__all__ = [
    "count_letters",
    "describe_not_scanned",
    "describe_unmatched",
    "progress",
    "raise_failure",
    "report_purged",
    "report_replayed",
    "summary",
]


ReportT = TypeVar("ReportT", ReplayReport, PurgeReport)


@contextmanager
def progress(
    name: str, total: int, results: dict[str, ReportT]
) -> Iterator[Callable[[ReportT], None]]:
    """Show a progress bar on standard error if standard error is a terminal.

    The block gets a function that it calls with each new report of the queue `name`. The function
    stores the report in `results`, so `results` is current even if the work is interrupted.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = EscapingConsole(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=total)

        def update(report: ReportT) -> None:
            results[name] = report
            bar.update(task, completed=report.matched)

        yield update


def summary(browse_result: BrowseResult, shown: int, selection: Selection) -> str:
    """Return the summary line of a list of dead letters.

    The line has the number of matching dead letters. If only some of them are shown, it has also
    the number of those. It names the filter values that no dead letter has.
    """
    more = (
        f"; the oldest {shown} are shown, use --limit to show more"
        if 0 < shown < browse_result.matching
        else ""
    )
    count = count_letters(browse_result.matching) if browse_result.matching else "no dead letters"
    unmatched = describe_unmatched(selection, browse_result.seen)
    return f"{count}{more}{unmatched}{describe_not_scanned(browse_result.not_scanned)}"


def describe_unmatched(selection: Selection, seen: ObservedValues) -> str:
    """Return text that names the selected types, codes and ids that no scanned dead letter has.

    Callers append the text to a message. The text is empty if every selected value was found.
    """
    selected = (("type", selection.types, seen.types), ("code", selection.codes, seen.codes))
    unmatched = [
        (what, name, did_you_mean(name, observed))
        for what, names, observed in selected
        for name in sorted(names - observed)
    ]
    # Do not suggest similar ids: users copy ids and do not type them.
    unmatched += [("id", name, "") for name in sorted(selection.ids - seen.ids)]
    return "".join(
        f"; no dead letter has the {what} {name!r}{hint}" for what, name, hint in unmatched
    )


def describe_not_scanned(count: int) -> str:
    """Return text with the number of dead letters that were not scanned.

    Callers append the text to a message. The text is empty if the number is 0.
    """
    return f"; {count} more were not scanned, use --scan to scan more" if count else ""


def count_letters(count: int) -> str:
    """Return `1 dead letter` or `2 dead letters`."""
    return f"{count} dead letter{'' if count == 1 else 's'}"


def report_replayed(
    results: Mapping[str, ReplayReport], selection: Selection, *, dry_run: bool, as_json: bool
) -> None:
    """Print how many dead letters of each queue matched and how many were replayed.

    Raises:
        BusError: The replay of a queue failed.
        FailedPrecondition: Some dead letters were not replayed, for example expired messages.
    """
    if as_json:
        print_json({name: to_json(report) for name, report in results.items()}, compact=True)
    for name, report in results.items():
        if not as_json and (report.matched or report.not_scanned):
            say(
                f"{name}: {'would replay' if dry_run else 'replayed'} {report.replayed} of "
                f"{report.matched}{describe_not_scanned(report.not_scanned)}"
            )
    complete = not any(report.failure for report in results.values())
    unmatched = (
        describe_unmatched(
            selection, ObservedValues().add(report.seen for report in results.values())
        )
        if complete
        else ""
    )
    if not any(report.matched for report in results.values()):
        say(f"no matching dead letters{unmatched}")
    elif unmatched:
        say(unmatched.removeprefix("; "))
    uncertain = sum(report.uncertain for report in results.values())
    if uncertain:
        say(
            f"{count_letters(uncertain)} may be both in the work queue and in the dead-letter "
            "queue, with the same id"
        )
    raise_failure(results.values())
    expired = sum(report.expired for report in results.values())
    needs_operator = sum(report.needs_operator for report in results.values())
    no_queue = sum(report.no_queue for report in results.values())
    refused = [f"{expired} expired (use --extend TIME to give them time)"] if expired else []
    refused += (
        [f"{needs_operator} already extended three times, or without an operator's signature"]
        if needs_operator
        else []
    )
    refused += [f"{no_queue} without a work queue (start its service)"] if no_queue else []
    if refused:
        raise FailedPrecondition(f"some dead letters were not replayed: {', '.join(refused)}")


def to_json(report: ReplayReport) -> dict[str, int]:
    """Return a report as JSON. The keys are part of the command line's interface."""
    return {
        "matched": report.matched,
        "replayed": report.replayed,
        "expired": report.expired,
        "unsigned": report.needs_operator,
        "homeless": report.no_queue,
        "doubtful": report.uncertain,
        "unseen": report.not_scanned,
    }


def report_purged(
    results: Mapping[str, PurgeReport], browse_result: BrowseResult, *, as_json: bool
) -> None:
    """Print the number of deleted dead letters."""
    if as_json:
        print_json(
            {
                name: {"matched": report.matched, "deleted": report.deleted}
                for name, report in results.items()
            },
            compact=True,
        )
    elif results:
        deleted = sum(report.deleted for report in results.values())
        say(f"deleted {count_letters(deleted)}{describe_not_scanned(browse_result.not_scanned)}")


def raise_failure(reports: Iterable[ReplayReport | PurgeReport]) -> None:
    """Raise the first error that a report recorded. Do nothing if no report has an error."""
    for report in reports:
        if report.failure is not None:
            raise report.failure
