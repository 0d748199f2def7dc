"""The table and the JSON of `bus consumers list`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.quantities import format_duration, format_number
from bus.cli.queue_table import UNKNOWN
from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import HandlerState, InstanceStats, PauseInfo
from bus.runtime.operator_pause import OPERATOR_PAUSE

__all__ = ["ConsumerRow", "consumer_rows", "consumers_table", "consumers_to_json"]

COLUMNS = (
    Column("queue", is_text=True),
    Column("kind", 6, is_text=True),
    Column("instances", 5),
    Column("in flight", 7),
    Column("paused"),
    Column("by", 1, is_text=True),
    Column("ends in", 2),
    Column("stored", 4, is_text=True),
    Column("reason", 3, is_text=True),
)
NO_END = "never"
"""Text of a pause that only an operator ends."""


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """The consumers of one queue in all live instances of its service."""

    service: str
    handlers: Sequence[HandlerState]

    @property
    def queue(self) -> str:
        """Work queue."""
        return self.handlers[0].queue

    @property
    def paused(self) -> int:
        """Number of the instances that start no message now."""
        return sum(bool(each.pauses) for each in self.handlers)

    @property
    def pause(self) -> PauseInfo | None:
        """The latest pause of an operator, or None."""
        pauses = [each.operator_pause for each in self.handlers if each.operator_pause]
        return max(pauses, key=lambda each: each.at, default=None)

    @property
    def other_pauses(self) -> list[str]:
        """The other reasons, such as `dependency:ehr`."""
        reasons = {reason for each in self.handlers for reason in each.pauses}
        return sorted(reasons - {OPERATOR_PAUSE})


def consumer_rows(records: Iterable[InstanceStats], *, only_paused: bool) -> list[ConsumerRow]:
    """Return a row for each queue of events and jobs, the paused ones first."""
    found: dict[tuple[str, str], list[HandlerState]] = {}
    for record in records:
        for handler in record.handlers:
            if handler.kind != "request":
                found.setdefault((record.service, handler.queue), []).append(handler)
    rows = [ConsumerRow(service, handlers) for (service, _), handlers in found.items()]
    rows = [row for row in rows if row.paused or not only_paused]
    return sorted(rows, key=lambda row: (not row.paused, row.service, row.queue))


def consumers_table(
    records: Iterable[InstanceStats], console: Console, *, now: float, only_paused: bool
) -> RenderableType:
    """Return a table with a row for each queue of events and jobs.

    Args:
        records: The answers of the instances.
        console: The console on which the table is printed.
        now: Seconds since the epoch.
        only_paused: True to leave out the consumers that are not paused.
    """
    records = list(records)
    rows = consumer_rows(records, only_paused=only_paused)
    if not rows:
        what = "paused consumer" if only_paused else "consumer of events or jobs"
        return Text(f"no {what} in {count_noun(len(records), 'instance')}")
    return fitting_table(COLUMNS, (_cells(row, now) for row in rows), console)


def _cells(row: ConsumerRow, now: float) -> tuple[str | Text, ...]:
    pause, count = row.pause, len(row.handlers)
    style = "bold yellow" if row.paused else ""
    return (
        Text(one_line(row.queue), style="bold"),
        row.handlers[0].kind,
        format_number(count),
        format_number(sum(each.in_flight for each in row.handlers)),
        Text(f"{row.paused}/{count}" if row.paused else UNKNOWN, style=style),
        one_line(_causes(row)) or UNKNOWN,
        UNKNOWN if pause is None else _time_left(pause, now),
        UNKNOWN if pause is None else "yes" if pause.stored else "no",
        UNKNOWN if pause is None else one_line(pause.reason),
    )


def _causes(row: ConsumerRow) -> str:
    """Return the operator and the other reasons of a pause."""
    operators = [row.pause.by] if row.pause is not None else []
    return ", ".join([*operators, *row.other_pauses])


def _time_left(pause: PauseInfo, now: float) -> str:
    return NO_END if pause.until is None else format_duration(max(0.0, pause.until / 1000 - now))


def consumers_to_json(
    records: Iterable[InstanceStats], at: float, *, only_paused: bool
) -> dict[str, Any]:
    """Return the consumers. The keys are a part of the command's interface."""
    return {
        "at": round(at, 3),
        "consumers": [
            {
                "service": row.service,
                "queue": row.queue,
                "kind": row.handlers[0].kind,
                "instances": len(row.handlers),
                "in_flight": sum(each.in_flight for each in row.handlers),
                "paused": row.paused,
                "operator_pause": None if row.pause is None else row.pause.model_dump(),
                "other_pauses": row.other_pauses,
            }
            for row in consumer_rows(records, only_paused=only_paused)
        ],
    }
