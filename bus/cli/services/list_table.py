"""Table of all live services, and lines about their problems."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.quantities import (
    format_ago,
    format_duration,
    format_number,
    format_rate,
    format_share,
)
from bus.messaging.escaped_text import one_line
from bus.runtime.discovery.live_view import LifeState
from bus.runtime.discovery.service_summary import ServiceSummary

__all__ = ["STATE_STYLES", "problem_lines", "services_table"]

STATE_STYLES: dict[LifeState, str] = {
    "ready": "green",
    "starting": "yellow",
    "draining": "yellow",
    "not-ready": "bold red",
    "gone": "bold red",
}
COLUMNS = (
    Column("service", is_text=True),
    Column("instances"),
    Column("state", is_text=True),
    Column("version", 4, is_text=True),
    Column("operations", 6),
    Column("handled", 3),
    Column("rate/s", 2),
    Column("errors"),
    Column("p50", 1),
    Column("p99"),
    Column("slots", 5),
    Column("up", 7),
)


def services_table(services: Sequence[ServiceSummary], console: Console) -> RenderableType:
    """Return a table with one row for each service, and a line for each problem above it.

    The lines are above the table, because rich cuts off the rows that do not fit on the screen.
    """
    table = fitting_table(COLUMNS, (_row(service) for service in services), console)
    return Group(*problem_lines(services), table)


def problem_lines(services: Iterable[ServiceSummary]) -> Iterator[Text]:
    """Yield a line for each problem of the services."""
    for service in services:
        for problem in service.problems:
            yield Text(one_line(f"{service.name}: {problem.text}"), style="yellow")


def _row(service: ServiceSummary) -> tuple[str | Text, ...]:
    state, durations = service.state, service.durations
    live = len(service.live)
    share = service.states[state]
    is_partial = 0 < share < live
    return (
        Text(one_line(service.name), style="bold"),
        format_number(live),
        Text(f"{state} {share}/{live}" if is_partial else state, style=STATE_STYLES[state]),
        Text(one_line(", ".join(service.versions)), style="yellow" if service.is_mixed else ""),
        format_number(len(service.totals.handled)),
        format_number(service.recent),
        format_rate(service.rate),
        Text(
            format_share(service.recently_failed, service.recent),
            style="bold red" if service.is_failing else "",
        ),
        format_duration(durations.quantile(0.5)),
        format_duration(durations.quantile(0.99)),
        f"{service.used}/{service.slots}",
        format_ago(service.started),
    )
