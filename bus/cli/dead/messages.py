"""What the commands for dead letters say of what they did."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bus.cli.output import print_json, say
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
    "end_with",
    "letters_of",
    "progress",
    "summary",
    "tell_purged",
    "tell_replayed",
    "unseen",
]


Done = TypeVar("Done", ReplayReport, PurgeReport)


@contextmanager
def progress(name: str, total: int, results: dict[str, Done]) -> Iterator[Callable[[Done], None]]:
    """A bar on standard error, where that is a terminal; `results` has what was done so far, also where that is interrupted."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=total)

        def update(done: Done) -> None:
            results[name] = done
            bar.update(task, completed=done.matched)

        yield update


def summary(found: BrowseResult, shown: int, wanted: Selection) -> str:
    """How many there are, how many of them are not shown, and what was perhaps mistyped."""
    more = (
        f"; the oldest {shown} are shown, --limit shows more" if 0 < shown < found.matching else ""
    )
    return f"{letters_of(found.matching) if found.matching else 'no dead letters'}{more}{unmet(wanted, found.seen)}{unseen(found.not_scanned)}"


def unmet(wanted: Selection, seen: ObservedValues) -> str:
    """The types, codes and ids that were asked for and that none of all that were looked at has."""
    asked = (("type", wanted.types, seen.types), ("code", wanted.codes, seen.codes))
    missing = [
        (what, name, did_you_mean(name, there))
        for what, names, there in asked
        for name in sorted(names - there)
    ]
    missing += [("id", name, "") for name in sorted(wanted.ids - seen.ids)]  # nobody types an id
    return "".join(f"; none has the {what} {name!r}{meant}" for what, name, meant in missing)


def unseen(count: int) -> str:
    """That there are more than were looked at."""
    return f"; {count} more were not looked at, --scan looks at more" if count else ""


def letters_of(count: int) -> str:
    """`1 dead letter`, `2 dead letters`."""
    return f"{count} dead letter{'' if count == 1 else 's'}"


def tell_replayed(
    results: Mapping[str, ReplayReport], wanted: Selection, *, dry_run: bool, as_json: bool
) -> None:
    """Counts by queue, and then what went wrong as an error."""
    if as_json:
        print_json({name: as_value(each) for name, each in results.items()}, compact=True)
    for name, each in results.items():
        if not as_json and (each.matched or each.not_scanned):
            say(
                f"{name}: {'would replay' if dry_run else 'replayed'} {each.replayed} of {each.matched}{unseen(each.not_scanned)}"
            )
    whole = not any(each.failure for each in results.values())
    mistyped = (
        unmet(wanted, ObservedValues().add(each.seen for each in results.values())) if whole else ""
    )
    if not any(each.matched for each in results.values()):
        say(f"no dead letters that fit{mistyped}")
    elif mistyped:
        say(mistyped.removeprefix("; "))
    doubtful = sum(each.uncertain for each in results.values())
    if doubtful:
        say(f"{letters_of(doubtful)} may be in both places; the ids are the same")
    end_with(results.values())
    expired = sum(each.expired for each in results.values())
    unsigned = sum(each.needs_operator for each in results.values())
    homeless = sum(each.no_queue for each in results.values())
    refused = [f"{expired} expired (--extend TIME gives them time)"] if expired else []
    refused += (
        [f"{unsigned} that were given more time three times already, or need an operator's word"]
        if unsigned
        else []
    )
    refused += [f"{homeless} whose work queue is not there (start its service)"] if homeless else []
    if refused:
        raise FailedPrecondition(f"not replayed: {', '.join(refused)}")


def as_value(report: ReplayReport) -> dict[str, int]:
    """Return a report as JSON; the keys are part of the command line's interface."""
    return {
        "matched": report.matched,
        "replayed": report.replayed,
        "expired": report.expired,
        "unsigned": report.needs_operator,
        "homeless": report.no_queue,
        "doubtful": report.uncertain,
        "unseen": report.not_scanned,
    }


def tell_purged(results: Mapping[str, PurgeReport], found: BrowseResult, *, as_json: bool) -> None:
    """How many were deleted."""
    if as_json:
        print_json(
            {
                name: {"matched": each.matched, "deleted": each.deleted}
                for name, each in results.items()
            },
            compact=True,
        )
    elif results:
        say(
            f"deleted {letters_of(sum(each.deleted for each in results.values()))}{unseen(found.not_scanned)}"
        )


def end_with(results: Iterable[ReplayReport | PurgeReport]) -> None:
    """The first failure, as this command's."""
    for each in results:
        if each.failure is not None:
            raise each.failure
