"""Table of operations with the rates and durations of the last interval."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.quantities import format_duration, format_number, format_rate
from bus.messaging.escaped_text import one_line
from bus.runtime.discovery.operation_problems import FAILING_SHARE
from bus.runtime.discovery.operation_summary import Operation, OperationSummary
from bus.runtime.discovery.service_summary import ServiceSummary

__all__ = ["SORT_KEYS", "OperationRow", "Sort", "operation_rows", "operations_table"]

Sort = Literal["rate", "p99", "errors"]
COLUMNS = (
    Column("operation", is_text=True),
    Column("rate/s"),
    Column("errors/s"),
    Column("p50", 2),
    Column("p99"),
    Column("max", 6),
    Column("delay p99", 4),
    Column("in flight", 3),
    Column("slots", 1),
    Column("instances", 7),
)


@dataclass(frozen=True, slots=True)
class OperationRow:
    """An operation in the last interval."""

    now: OperationSummary
    """The state of the handlers."""
    interval: OperationSummary | None
    """The messages of the last interval. None until there are two answers."""

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
    "p99": lambda row: row.quantile(0.99) or 0.0,
    "errors": lambda row: row.error_rate,
}


def operation_rows(services: Iterable[ServiceSummary], sort: Sort) -> list[OperationRow]:
    """Return a row for each operation that live instances handle, the largest value first."""
    rows: list[OperationRow] = []
    for service in services:
        intervals = {row.operation: row for row in service.interval.handled}
        rows += (
            OperationRow(row, intervals.get(row.operation))
            for row in service.totals.handled
            if row.handlers or row.operation in intervals
        )
    key = SORT_KEYS[sort]
    return sorted(rows, key=lambda row: (-key(row), row.now.operation))


def operations_table(rows: Sequence[OperationRow], console: Console) -> Table:
    """Return the table of the rows."""
    return fitting_table(COLUMNS, map(_cells, rows), console)


def label_of(operation: Operation) -> str:
    """Return the type of an operation. For an event, add the subscriber and the subscription."""
    if operation.kind != "event":
        return operation.type
    subscriber = ", ".join(filter(None, (operation.service, operation.subscription)))
    return f"{operation.type} ({subscriber})"


def _cells(row: OperationRow) -> tuple[str | Text, ...]:
    now, interval = row.now, row.interval
    is_failing = row.error_rate > 0 and row.error_rate >= FAILING_SHARE * row.rate
    is_full = now.slots > 0 and now.free == 0
    paused = f" paused: {', '.join(now.pauses)}" if now.pauses else ""
    durations = interval.durations if interval else None
    return (
        Text.assemble(one_line(label_of(now.operation)), (one_line(paused), "bold yellow")),
        format_rate(interval.rate if interval else None),
        Text(
            format_rate(interval.error_rate if interval else None),
            style="bold red" if is_failing else "",
        ),
        format_duration(row.quantile(0.5)),
        format_duration(row.quantile(0.99)),
        format_duration(durations.max if durations and durations.count else None),
        format_duration(interval.delays.quantile(0.99) if interval else None),
        format_number(now.in_flight),
        Text(f"{now.slots - now.free}/{now.slots}", style="bold yellow" if is_full else ""),
        format_number(len(now.handlers)),
    )
