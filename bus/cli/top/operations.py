"""Table of operations with the rates and durations of the last interval."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.quantities import format_duration, format_number, format_rate
from bus.cli.queue_table import format_count
from bus.messaging.escaped_text import one_line
from bus.runtime.discovery.job_summary import summarize_jobs
from bus.runtime.discovery.operation_problems import FAILING_SHARE, problems_of
from bus.runtime.discovery.operation_summary import Operation, OperationSummary
from bus.runtime.discovery.service_summary import ServiceSummary
from bus.runtime.operator_pause import OPERATOR_PAUSE

__all__ = [
    "SORT_KEYS",
    "OperationRow",
    "Sort",
    "important_rows",
    "operation_rows",
    "operations_table",
]

Sort = Literal["rate", "p99", "errors"]
COLUMNS = (
    Column("operation", is_text=True),
    Column("rate/s"),
    Column("errors/s"),
    Column("p50", 5),
    Column("p99"),
    Column("max", 7),
    Column("delay p99", 4),
    Column("oldest", 2),
    Column("waiting", 3),
    Column("in flight", 6),
    Column("slots", 1),
    Column("instances", 8),
)


@dataclass(frozen=True)
class OperationRow:
    """An operation in the last interval."""

    now: OperationSummary
    """The state of the handlers."""
    interval: OperationSummary | None
    """The messages of the last interval. None until there are two answers."""
    waiting: int | None = None
    """Messages in the queues of its handlers that no instance has received, and queued jobs in the
    store of its service. None if unknown.
    """

    @cached_property
    def problems(self) -> frozenset[str]:
        """Codes of its problems."""
        return frozenset(each.code for each in problems_of(self.now, self.interval))

    @property
    def is_failing(self) -> bool:
        """True if it fails often, in the last interval or in the last 1 to 2 minutes."""
        fails_now = self.error_rate > 0 and self.error_rate >= FAILING_SHARE * self.rate
        return fails_now or "failing" in self.problems

    @property
    def slowness(self) -> float:
        """The p99 of the interval, or the time of the oldest running message if it is longer."""
        running = self.now.oldest[1] if self.now.oldest else 0.0
        return max(self.quantile(0.99) or 0.0, running)

    @property
    def rate(self) -> float:
        """Attempts per second."""
        return (self.interval and self.interval.rate) or 0.0

    @property
    def error_rate(self) -> float:
        """Failed attempts per second."""
        return (self.interval and self.interval.error_rate) or 0.0

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the durations of the interval, or None without values."""
        return self.interval.durations.quantile(q) if self.interval else None


SORT_KEYS: dict[Sort, Callable[[OperationRow], float]] = {
    "rate": lambda row: row.rate,
    "p99": lambda row: row.slowness,
    "errors": lambda row: row.error_rate,
}


def operation_rows(
    services: Iterable[ServiceSummary], sort: Sort, ready: Mapping[str, int | None] | None = None
) -> list[OperationRow]:
    """Return a row for each operation that live instances handle, the largest value first.

    Args:
        services: The services.
        sort: The value.
        ready: Number of ready messages by queue, as far as it is known.
    """
    rows: list[OperationRow] = []
    for service in services:
        intervals = {row.operation: row for row in service.interval.handled}
        stored = _queued_jobs(service)
        rows += (
            OperationRow(row, intervals.get(row.operation), _waiting(row, ready or {}, stored))
            for row in service.totals.handled
            if row.handlers or row.operation in intervals
        )
    key = SORT_KEYS[sort]
    return sorted(rows, key=lambda row: (-key(row), row.now.operation))


def _queued_jobs(service: ServiceSummary) -> Mapping[str, int]:
    """Return the number of queued jobs in the store of a service, by type."""
    jobs = summarize_jobs(each.record for each in service.live)
    return {each.type: each.states["queued"] for each in jobs}


def _waiting(
    row: OperationSummary, ready: Mapping[str, int | None], stored: Mapping[str, int]
) -> int | None:
    queues = {handler.queue for _, handler in row.handlers}
    known = [count for queue in queues if (count := ready.get(queue)) is not None]
    if row.operation.kind == "job" and row.operation.type in stored:
        known.append(stored[row.operation.type])
    return sum(known) if known else None


def important_rows(rows: Sequence[OperationRow], maximum: int) -> list[OperationRow]:
    """Return at most `maximum` rows in their order, and leave out those without a problem first.

    The slowest operation and the failing ones are the last that are left out.
    """
    if len(rows) <= maximum:
        return list(rows)
    slowest = max(rows, key=lambda row: row.slowness)
    ranked = sorted(
        range(len(rows)),
        key=lambda at: (not rows[at].is_failing, rows[at] is not slowest, not rows[at].problems),
    )
    return [rows[at] for at in sorted(ranked[:maximum])]


def operations_table(rows: Sequence[OperationRow], console: Console) -> Table:
    """Return the table of the rows."""
    return fitting_table(COLUMNS, map(_cells, rows), console)


def label_of(operation: Operation) -> str:
    """Return the type of an operation. For an event, add the subscriber and the subscription."""
    if operation.kind != "event":
        return operation.type
    subscriber = ", ".join(filter(None, (operation.service, operation.subscription)))
    return f"{operation.type} ({subscriber})"


def _causes(row: OperationSummary) -> Iterator[str]:
    """Yield the reasons of the pauses, with the name of an operator."""
    pause = row.operator_pause
    for reason in row.pauses:
        yield f"{reason} {pause.by}" if pause and reason == OPERATOR_PAUSE else reason


def _cells(row: OperationRow) -> tuple[str | Text, ...]:
    now, interval = row.now, row.interval
    is_long, is_full = "long" in row.problems, "full" in row.problems
    paused = f" paused: {', '.join(_causes(now))}" if now.pauses else ""
    durations = interval.durations if interval else None
    return (
        Text.assemble(one_line(label_of(now.operation)), (one_line(paused), "bold yellow")),
        format_rate(interval.rate if interval else None),
        Text(
            format_rate(interval.error_rate if interval else None),
            style="bold red" if row.is_failing else "",
        ),
        format_duration(row.quantile(0.5)),
        format_duration(row.quantile(0.99)),
        format_duration(durations.max if durations and durations.count else None),
        format_duration(interval.delays.quantile(0.99) if interval else None),
        Text(
            format_duration(now.oldest[1] if now.oldest else None),
            style="bold yellow" if is_long else "",
        ),
        format_count(row.waiting),
        format_number(now.in_flight),
        Text(f"{now.slots - now.free}/{now.slots}", style="bold yellow" if is_full else ""),
        format_number(len(now.handlers)),
    )
