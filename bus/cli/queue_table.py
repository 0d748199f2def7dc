"""The queues as a table for people, a group for each service, and what is to be done about them."""

import math
import time
from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bus.messaging.topology.names import RETRY_DELAYS
from bus.operations.queue_inspection import QueueReport, QueueStatus

__all__ = ["notes", "table"]

UNKNOWN = "-"
WORK = ("requests", "jobs", "events")
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def table(seen: QueueReport) -> RenderableType:
    """The broker, the time, and the queues."""
    grid = Table(box=None, padding=(0, 0, 0, 1), header_style="bold", pad_edge=False)
    grid.add_column("queue", overflow="fold")
    for name in ("ready", "unacked", "consumers", "oldest", "dead"):
        grid.add_column(name, justify="right", no_wrap=True)
    for service, states in groupby(seen.queues, key=lambda each: each.service):
        grid.add_row(f"[bold]{service}[/]")
        for row in rows(service, list(states)):
            grid.add_row(*row)
    when = time.strftime("%H:%M:%S", time.localtime(seen.at))
    head = Text(
        f"{seen.server.product} {seen.server.version}, {seen.server.cluster}, at {when}",
        style="dim",
    )
    body = grid if seen.queues else Text("no queues of the bus")
    return Group(head, body)


def rows(service: str, states: list[QueueStatus]) -> Iterator[tuple[str | Text, ...]]:
    """A service's: work queues with the number of their dead letters, retry tiers, reply queues together, what came back in vain."""
    dead = {each.work_queue: held(each) for each in states if each.role == "dead"}
    for each in (each for each in states if each.role in WORK):
        yield row(service, each, dead.get(each.name))
    for each in sorted(
        (each for each in states if each.role == "retry"),
        key=lambda each: RETRY_DELAYS[each.name.rpartition(".")[2]],
    ):
        yield short(service, each), number(each.ready), number(each.unacked), "", "", ""
    replies = [each for each in states if each.role == "replies"]
    if replies:
        waiting, unacked = (
            total(getattr(each, name) for each in replies) for name in ("ready", "unacked")
        )
        name = f"  replies ({len(replies)} {'instance' if len(replies) == 1 else 'instances'})"
        yield name, number(waiting), number(unacked), "", "", ""
    for each in (
        each for each in states if each.role == "dead" and each.work_queue is None and held(each)
    ):
        yield short(service, each), "", "", "", "", warned(held(each), "bold red", when=True)


def row(service: str, each: QueueStatus, dead: int | None) -> tuple[str | Text, ...]:
    """One work queue."""
    return (
        short(service, each),
        number(each.ready),
        number(each.unacked),
        warned(each.consumers, "bold yellow", when=each.consumers == 0 and bool(each.ready)),
        age(each.oldest),
        warned(dead, "bold red", when=bool(dead)) if each.role != "requests" else "",
    )


def notes(seen: QueueReport) -> Iterator[str]:
    """What somebody should do, and what could not be told; a line each, with rich's markup."""
    for each in seen.queues:
        yield from (f"[yellow]{escape(text)}[/]" for text in advice(each))
    if seen.without_management:
        yield f"[dim]unacked, oldest and reply queues are not known: {escape(seen.without_management)}; set BUS_MANAGEMENT_URL[/]"
        if any(
            each.role == "requests" and each.exists and each.consumers is None
            for each in seen.queues
        ):
            yield "[dim]request queues are left out: to ask again and again by AMQP would keep those alive that nobody serves[/]"


def advice(each: QueueStatus) -> Iterator[str]:
    """What is to be done about one queue."""
    if each.last_error:
        yield f"{each.name}: {each.last_error}"
    if not each.exists and each.role in WORK:
        yield f"{each.name} is not there: nobody serves it{' now' if each.role == 'requests' else ' yet'}"
    if each.role in WORK and each.ready and each.consumers == 0:
        yield f"{each.name}: {each.ready} wait and nobody consumes; start {each.service} with `bus run`"
    if each.role == "dead" and (count := held(each)):
        yield f"{each.name}: {count} dead {'letter' if count == 1 else 'letters'}"


def short(service: str, each: QueueStatus) -> str:
    """The name below its service's."""
    return f"  {each.name.removeprefix(f'{service}.')}"


def held(each: QueueStatus) -> int | None:
    """Everything in it."""
    return None if each.ready is None else each.ready + (each.unacked or 0)


def total(numbers: Iterator[int | None]) -> int | None:
    """Their sum; None where one is not known."""
    known = list(numbers)
    return None if None in known else sum(each or 0 for each in known)


def number(value: int | None) -> str:
    """A count, or that nobody could tell."""
    return UNKNOWN if value is None else f"{value}"


def warned(value: int | None, style: str, *, when: bool) -> Text:
    """A count, marked where it is not as it should be."""
    return Text(number(value), style=style if when else "")


def age(seconds: float | None) -> str:
    """In its largest unit: `45s`, `3m`, `2h`, `5d`."""
    if seconds is None:
        return UNKNOWN
    size, unit = next((each for each in UNITS if seconds >= each[0]), UNITS[-1])
    return f"{math.floor(seconds / size)}{unit}"
