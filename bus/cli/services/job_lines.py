"""Lines about the durable jobs of services, for `bus services` and `bus top`."""

from collections.abc import Iterable, Iterator

from rich.text import Text

from bus.cli.quantities import format_duration
from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.runtime.discovery.job_summary import summarize_jobs

__all__ = ["job_lines"]

MAX_LINES = 5
LATE_SECONDS = 60.0
"""Seconds of waiting from which a line is highlighted."""


def job_lines(records: Iterable[object], *, maximum: int = MAX_LINES) -> Iterator[Text]:
    """Yield a line for each type with jobs in a store, the one that waits longest first.

    Args:
        records: The answers of instances.
        maximum: Maximum number of types.
    """
    rows = summarize_jobs(records)
    for row in rows[:maximum]:
        waits = row.oldest_waiting
        late = f"; the oldest waits {format_duration(waits)}" if waits > 0 else ""
        style = "yellow" if waits >= LATE_SECONDS else ""
        yield Text(one_line(f"jobs of {row.type}: {row.counts}{late}"), style=style)
    if len(rows) > maximum:
        more = count_noun(len(rows) - maximum, "more type")
        yield Text(f"jobs of {more}; see `bus jobs list`", style="dim")
