"""The table and the JSON of `bus breakers list`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.quantities import format_ago, format_duration, format_number
from bus.cli.queue_table import UNKNOWN
from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.policy_info import BreakerInfo, InstanceBreakers

__all__ = ["breaker_table", "breakers_to_json"]

STYLES = {
    "closed": "green",
    "half-open": "yellow",
    "open": "bold red",
    "isolated": "bold magenta",
}
"""Styles of the states. A service with a later version of the bus can have more states."""
COLUMNS = (
    Column("service", is_text=True),
    Column("instance", 6, is_text=True),
    Column("breaker", is_text=True),
    Column("kind", 7, is_text=True),
    Column("state", is_text=True),
    Column("since", 3),
    Column("ends in", 2),
    Column("failed/calls 10s", 4),
    Column("rejected", 5),
    Column("cause", 1, is_text=True),
)
Row = tuple[InstanceBreakers, BreakerInfo]


def breaker_table(
    records: Iterable[InstanceBreakers], console: Console, *, now: float, everything: bool
) -> RenderableType:
    """Return a table with one row for each breaker of each instance.

    Args:
        records: The answers of the instances.
        console: The console on which the table is printed.
        now: Seconds since the epoch.
        everything: True to show also the closed breakers. Otherwise a line counts them.
    """
    rows = _rows(records)
    shown = [row for row in rows if everything or row[1].state != "closed"]
    closed = sum(each.state == "closed" for _, each in rows)
    head = f"{count_noun(len(rows), 'breaker')}, {closed} closed"
    note = "" if everything or not closed else "; --all shows the closed ones"
    parts: list[RenderableType] = [*_order_lines(shown), Text(f"{head}{note}", style="dim")]
    if shown:
        parts.append(fitting_table(COLUMNS, [_row(row, now) for row in shown], console))
    return Group(*parts)


def _order_lines(rows: Iterable[Row]) -> Iterator[Text]:
    """Yield a line for each order that put breakers into their state, with its reason.

    A narrow table has no column for it.
    """
    orders = Counter(
        (record.service, each.name, _past_order(each), each.ordered_by, each.reason)
        for record, each in rows
        if each.ordered_by
    )
    for (service, name, order, operator, reason), count in orders.items():
        text = f"{service}: {name} {order} by {operator} in {count_noun(count, 'instance')}"
        yield Text(one_line(f"{text}: {reason}"), style="yellow")


def _past_order(info: BreakerInfo) -> str:
    """Return the order of an operator. An isolation that has ended leaves a breaker half-open."""
    return "was reset" if info.state == "closed" else "was isolated"


def _rows(records: Iterable[InstanceBreakers]) -> list[Row]:
    """Return the breakers of all instances. Those that are not closed come first."""
    rows = [(record, each) for record in records for each in record.breakers]
    order = {"isolated": 0, "open": 1, "half-open": 2, "closed": 4}
    return sorted(
        rows,
        key=lambda row: (
            order.get(row[1].state, 3),
            row[0].service,
            row[1].name,
            row[0].instance,
        ),
    )


def _row(row: Row, now: float) -> tuple[str | Text, ...]:
    record, info = row
    return (
        Text(one_line(record.service), style="bold"),
        one_line(record.instance),
        one_line(info.name),
        one_line(info.kind),
        Text(one_line(info.state), style=STYLES.get(info.state, "yellow")),
        format_ago(info.not_closed_since or info.since, now),
        _end(info, now),
        # An opening forgets the window.
        f"{format_number(info.failures)}/{format_number(info.calls)}" if info.calls else UNKNOWN,
        format_number(info.rejected),
        _cause(info),
    )


def _end(info: BreakerInfo, now: float) -> str:
    """Return the time until the next probe, or until the end of an order."""
    if info.until is None:
        return UNKNOWN
    left = info.until / 1000 - now  # the answer is as old as the wait for the others
    return format_duration(left) if left > 0 else "now"


def _cause(info: BreakerInfo) -> str:
    """Return the cause of the state, with the operator if it was an order."""
    cause = info.cause or UNKNOWN
    return one_line(f"{cause} ({info.ordered_by})" if info.ordered_by else cause)


def breakers_to_json(records: Iterable[InstanceBreakers], at: float) -> dict[str, Any]:
    """Return the breakers of all instances. The keys are a part of the command's interface."""
    return {
        "at": round(at, 3),
        "breakers": [
            {"service": record.service, "instance": record.instance, **each.model_dump()}
            for record, each in _rows(records)
        ],
    }
