"""Table of the queues, grouped by service, and notes on queues that need an operator's action."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bus.messaging.escaped_text import one_line
from bus.messaging.topology.names import RETRY_DELAYS, SOURCES
from bus.operations.queue_inspection import QueueReport, QueueStatus
from bus.operations.unserved_queues import UnservedQueue, find_unserved

__all__ = ["notes", "print_report", "report_to_json", "table"]

UNKNOWN = "-"
WORK = ("requests", "jobs", "events")
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def print_report(report: QueueReport, console: Console) -> None:
    """Print the table, and the notes below it."""
    console.print(table(report))
    for line in notes(report):
        console.print(line, highlight=False)


def table(report: QueueReport) -> RenderableType:
    """Return a line with the broker and the time, and a table of the queues below it."""
    grid = Table(box=None, padding=(0, 0, 0, 1), header_style="bold", pad_edge=False)
    grid.add_column("queue", overflow="fold")
    for name in ("ready", "unacked", "consumers", "oldest", "dead"):
        grid.add_column(name, justify="right", no_wrap=True)
    for service, queues in groupby(report.queues, key=lambda queue: queue.service):
        grid.add_row(Text(one_line(service), style="bold"))
        for row in service_rows(service, list(queues)):
            grid.add_row(*row)
    server, at = report.server, time.strftime("%H:%M:%S", time.localtime(report.at))
    age_note = ", counts up to 5 s old" if any(queue.is_sampled for queue in report.queues) else ""
    head = Text(
        one_line(f"{server.product} {server.version}, {server.cluster}, at {at}{age_note}"),
        style="dim",
    )
    body = grid if report.queues else Text("no queues of the bus")
    return Group(head, body)


def service_rows(service: str, queues: list[QueueStatus]) -> Iterator[tuple[str | Text, ...]]:
    """Yield the rows of one service.

    First come the work queues, each with the number of its dead letters. Then come the retry tiers,
    one row for all reply queues, and the dead-letter queue for unroutable messages. A message is
    unroutable if it returned from a retry tier after its work queue was deleted.
    """
    dead = {queue.work_queue: total_messages(queue) for queue in queues if queue.role == "dead"}
    for queue in (queue for queue in queues if queue.role in WORK):
        yield work_queue_row(service, queue, dead.get(queue.name))
    for queue in sorted(
        (queue for queue in queues if queue.role == "retry"),
        key=lambda queue: RETRY_DELAYS[queue.name.rpartition(".")[2]],
    ):
        name = short_name(service, queue)
        yield name, format_count(queue.ready), format_count(queue.unacked), "", "", ""
    replies = [queue for queue in queues if queue.role == "replies"]
    if replies:
        ready, unacked = (
            add_counts(getattr(queue, name) for queue in replies) for name in ("ready", "unacked")
        )
        text = f"  replies ({len(replies)} {'instance' if len(replies) == 1 else 'instances'})"
        yield text, format_count(ready), format_count(unacked), "", "", ""
    for queue in (
        queue
        for queue in queues
        if queue.role == "dead" and queue.work_queue is None and total_messages(queue)
    ):
        count = mark_count(total_messages(queue), "bold red", when=True)
        yield short_name(service, queue), "", "", "", "", count


def work_queue_row(service: str, queue: QueueStatus, dead: int | None) -> tuple[str | Text, ...]:
    """Return the row of one work queue, with the number of its dead letters."""
    return (
        short_name(service, queue),
        format_count(queue.ready),
        format_count(queue.unacked),
        mark_count(queue.consumers, "bold yellow", when=queue.consumers == 0 and bool(queue.ready)),
        age(queue.oldest),
        mark_count(dead, "bold red", when=bool(dead)) if queue.role != "requests" else "",
    )


def notes(report: QueueReport) -> Iterator[str]:
    """Yield the notes as lines in rich's markup.

    The notes name the problems of the queues, and the values that are unknown and why.
    """
    unserved = find_unserved(report.queues)
    for queue in report.queues:
        advice = advise(queue, unserved.get(queue.name))
        yield from (f"[yellow]{escape(one_line(text))}[/]" for text in advice)
    if report.without_management:
        yield (
            "[dim]unacked, oldest and reply queues are unknown: "
            f"{escape(report.without_management)}; set BUS_MANAGEMENT_URL[/]"
        )
        if any(
            queue.role == "requests" and queue.exists and queue.consumers is None
            for queue in report.queues
        ):
            yield (
                "[dim]request queues are not inspected: repeated queries over AMQP would prevent "
                "the expiry of request queues without a consumer[/]"
            )


def advise(queue: QueueStatus, unserved: UnservedQueue | None = None) -> Iterator[str]:
    """Yield a line for each problem of one queue, if possible with its remedy."""
    if queue.last_error:
        yield f"{queue.name}: {queue.last_error}"
    if not queue.exists and queue.role in WORK:
        since = "now" if queue.role == "requests" else "yet"
        yield f"{queue.name} does not exist: no process serves it {since}"
    if queue.is_unbound:
        yield (
            f"{queue.name}: it has a consumer, but is not bound to {SOURCES[queue.role]}, so no "
            "new message arrives; bind it with `bus topology apply`"
        )
    if unserved is not None:
        yield describe_unserved(queue, unserved)
    elif queue.role in WORK and queue.ready and queue.consumers == 0:
        yield (
            f"{queue.name}: {queue.ready} ready and no consumer; "
            f"start {queue.service} with `bus run`"
        )
    if queue.role == "dead" and (count := total_messages(queue)):
        yield f"{queue.name}: {count} dead {'letter' if count == 1 else 'letters'}"


def describe_unserved(queue: QueueStatus, unserved: UnservedQueue) -> str:
    """Return the line about a queue that no worker of a running service consumes."""
    ready = f"{queue.ready} ready and no consumer" if queue.ready else "no consumer"
    if unserved.newer is not None:
        return (
            f"{queue.name}: {ready}, and {queue.service} consumes {unserved.newer}; "
            "delete the old queue with `bus topology prune`"
        )
    return (
        f"{queue.name}: {ready}, although {queue.service} runs; `bus services {queue.service}` "
        "shows whether its consumer is paused. If not, start a worker that consumes it with "
        "`bus run`, or use `bus topology prune` if no router declares it"
    )


def short_name(service: str, queue: QueueStatus) -> Text:
    """Return the indented name of a queue without its service."""
    return Text(f"  {one_line(queue.name.removeprefix(f'{service}.'))}")


def total_messages(queue: QueueStatus) -> int | None:
    """Return the number of ready and unacked messages, or None if it is unknown."""
    return None if queue.ready is None else queue.ready + (queue.unacked or 0)


def add_counts(counts: Iterator[int | None]) -> int | None:
    """Return the sum of the counts, or None if one of them is unknown."""
    values = list(counts)
    return None if None in values else sum(value or 0 for value in values)


def format_count(count: int | None) -> str:
    """Return a count as text; `-` if it is unknown."""
    return UNKNOWN if count is None else f"{count}"


def mark_count(count: int | None, style: str, *, when: bool) -> Text:
    """Return a count as text, with `style` if `when` is True."""
    return Text(format_count(count), style=style if when else "")


def age(seconds: float | None) -> str:
    """Return a duration in its largest unit: `45s`, `3m`, `2h`, `5d`."""
    if seconds is None:
        return UNKNOWN
    size, unit = next((entry for entry in UNITS if seconds >= entry[0]), UNITS[-1])
    return f"{math.floor(seconds / size)}{unit}"


def queue_to_json(status: QueueStatus, unserved: UnservedQueue | None) -> dict[str, Any]:
    """Return one queue as JSON. The keys are part of the command line's interface."""
    return {
        "name": status.name,
        "service": status.service,
        "purpose": status.role,
        "work_queue": status.work_queue,
        "type": status.type,
        "exists": status.exists,
        "ready": status.ready,
        "unacked": status.unacked,
        "sampled": status.is_sampled,
        "consumers": status.consumers,
        "oldest": None if status.oldest is None else round(status.oldest, 1),
        "trouble": status.last_error,
        "unbound": status.is_unbound,
        "unserved": unserved is not None,
        "newer": unserved.newer if unserved else None,
    }


def report_to_json(report: QueueReport) -> dict[str, Any]:
    """Return the report as JSON. Unknown values are null. Times are in seconds."""
    unserved = find_unserved(report.queues)
    return {
        "broker": asdict(report.server),
        "at": round(report.at, 3),
        "without_management": report.without_management,
        "queues": [queue_to_json(queue, unserved.get(queue.name)) for queue in report.queues],
    }
