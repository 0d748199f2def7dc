"""Output of `bus demo`: the results of its steps, and the addresses of the broker."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bus.messaging.escaped_text import one_line
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.external import ExternalBroker

__all__ = ["print_result", "print_ui", "table_of"]

TIME_HEADERS = {"dead-at", "first-failed-at"}
"""Dead-letter headers that contain a time in milliseconds since the epoch."""


def print_result(console: Console, steps: list[Any], ending: Any) -> None:
    """Print the transcript, the documents, the invalid job and the table of the steps."""
    console.print()
    if ending.transcript is not None:
        _print_transcript(console, ending.transcript)
    console.print(
        f"[bold]Documents[/] of note {ending.note.note_id} ({ending.note.status})", highlight=False
    )
    for document in ending.note.documents:
        pages = (
            f", {document.pages} page{'s' if document.pages > 1 else ''}" if document.pages else ""
        )
        about = f"{document.format.upper():5} {document.size / 1000:.0f} kB{pages}"
        console.print(f"  {about:21} {document.uri}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    _print_refused(console, ending.refused)
    console.print()
    console.print(table_of(steps, ending.correlation_id))


def _print_refused(console: Console, refused: Any) -> None:
    """Print the headers of a dead letter, or the row of a failed job."""
    if refused.dead_letter is None:
        status = refused.status
        lines = {"id": status.id, "type": status.type, "state": status.state}
        lines |= {"code": status.code, "attempt": status.attempt, "reason": refused.reason}
        title = "Failed job"
    else:
        lines, title = dict(sorted(refused.dead_letter.headers.items())), "Dead letter"
    console.print(f"[bold]{title}[/]")
    for name, value in lines.items():
        text = (
            datetime.fromtimestamp(int(value) / 1000).astimezone().isoformat("T", "seconds")
            if name in TIME_HEADERS
            else str(value).replace("\n", f"\n{'':18}")
        )
        console.print(f"  {name:15} {text}", markup=False, highlight=False, soft_wrap=True)


def _print_transcript(console: Console, transcript: Any) -> None:
    console.print(
        f"[bold]Transcript[/] ({escape(transcript.engine)}, confidence {transcript.confidence:.2f})"
    )
    for segment in transcript.segments:
        console.print(
            f"  {segment.start:6.2f} s - {segment.end:6.2f} s  {one_line(segment.text)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print()


def table_of(steps: Iterable[Any], correlation_id: str) -> Table:
    """Return a table with a row per step.

    On a narrow screen, the table wraps long text and never cuts it.
    """
    table = Table(
        "step",
        "result",
        "at",
        "took",
        "correlation",
        caption=f"correlation id {correlation_id}",
    )
    for step in steps:
        short = (step.correlation_id or "").partition("-")[0]
        table.add_row(
            step.name,
            escape(one_line(step.outcome)),
            f"{step.at:.2f} s",
            f"{step.took * 1000:.0f} ms",
            short,
        )
    for column in (0, 1):
        table.columns[column].overflow = "fold"
    for column in (2, 3):
        table.columns[column].justify, table.columns[column].no_wrap = "right", True
    return table


def print_ui(console: Console, broker: Broker) -> None:
    """Print the addresses of a broker that the demonstration has started.

    The URLs of an external broker are not printed, because they can contain its password.
    """
    if isinstance(broker, ExternalBroker):
        console.print(
            f"{broker.describe()}: it continues to run. Ctrl-C ends the demo.",
            markup=False,
            highlight=False,
        )
        return
    console.print(f"RabbitMQ's UI: {broker.management_url or 'unknown'}", highlight=False)
    console.print(
        f"the broker's URL, with its user and password: {broker.url}",
        highlight=False,
        soft_wrap=True,
    )
    console.print("Ctrl-C stops RabbitMQ.")
