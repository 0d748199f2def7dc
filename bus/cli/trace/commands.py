"""The command `bus trace`."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import typer

from bus.cli.dead.options import SCAN, Scan
from bus.cli.jobs.table import job_to_json
from bus.cli.options import Window
from bus.cli.output import print_json, say, suppress_library_logs
from bus.cli.sender import AsAsker
from bus.cli.trace.json_output import to_json
from bus.cli.trace.mermaid import flowchart
from bus.cli.trace.sources import Reading, SourceOptions, read_trace
from bus.cli.trace.stored_jobs import job_line, read_stored_jobs
from bus.cli.trace.text import print_trace
from bus.errors import NotFound
from bus.messaging.labels import one_line
from bus.messaging.plurals import count_noun
from bus.operations.message_trace.join import join
from bus.operations.message_trace.notes import clock_time, source_notes
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import load_settings

__all__ = ["command"]

MAX_SHOWN_LENGTH = 80


def command(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A correlation id or the id of a message, or its first 4 or more characters.",
        ),
    ],
    *,
    service: Annotated[
        str | None,
        typer.Option(
            "--service",
            metavar="SERVICE|MODULE:ROUTER",
            show_default=False,
            help="Read only the queues of this service or router. A router needs no management "
            "API. Default: all services.",
        ),
    ] = None,
    format_: Annotated[
        Literal["tree", "mermaid", "json"],
        typer.Option("--format", help="Print a tree, a flowchart for Mermaid, or JSON."),
    ] = "tree",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    window: Window = 1.0,
    scan: Scan = SCAN,
    as_service: AsAsker = None,
) -> None:
    """Show what became of a message, and of all messages that it caused.

    The command joins the records of live instances, which remember their last messages, with the
    dead letters and the numbers of messages in queues. It shows which message was handled, runs,
    waits, waits in a retry tier until its time of return, or is dead. Below the tree, it names the
    records that are missing.

    The command never reads a work queue or a retry tier. A read would count as a delivery, and
    RabbitMQ would put the messages back in another order. To read dead letters, the command takes
    them out of their queue and puts them back, as `bus dead list` does. With BUS_AUTH=on it needs
    a key and the right control.read to ask the instances. Payloads are never shown.

    The jobs of a service with a store are rows. With its BUS_STORE, the command shows them, too.
    """
    settings = load_settings()
    asker = partial(open_asker, service=as_service)
    options = SourceOptions(service=service, window=window, scan=scan)
    with suppress_library_logs():
        reading = asyncio.run(read_trace(settings, id_, options, asker=asker))
        known = reading.identified
        stored = asyncio.run(
            read_stored_jobs(
                settings,
                id_,
                known.correlation_id if known else None,
                service=service if service and ":" not in service else None,
            )
        )
    now, jobs = int(time.time() * 1000), stored.jobs or ()
    reading = replace(reading, notes=(*reading.notes, *stored.notes))
    if known is None and not jobs:
        raise NotFound(describe_search(id_, reading, has_store=stored.jobs is not None))
    correlation_id = known.correlation_id if known else jobs[0].correlation_id
    trace = join(correlation_id, reading.sources, now=now)
    if known is not None and known.message_id is not None:
        say(
            f"{one_line(id_[:MAX_SHOWN_LENGTH])!r} is the id of a message; "
            f"its correlation id is {one_line(trace.correlation_id)}"
        )
    if as_json or format_ == "json":
        found = None if stored.jobs is None else [job_to_json(job) for job in stored.jobs]
        print_json({**to_json(trace, reading, now=now), "jobs": found}, compact=True)
    elif format_ == "mermaid":
        typer.echo(flowchart(trace))
        for job in jobs:
            say(job_line(job).plain)
        for note in (*reading.notes, *trace.notes):
            say(note)
    else:
        print_trace(trace, reading.notes, now=now, stored=[job_line(job) for job in jobs])


def describe_search(text: str, reading: Reading, *, has_store: bool = False) -> str:
    """Return the error about an id without a match. It names all places of the search."""
    sources, memory, letters = reading.sources, "", ""
    if sources.memories is not None:
        since = min((memory.since for memory in sources.memories if memory.since), default=None)
        begin = f", with messages since {clock_time(since)}" if since else ""
        memory = f" in the memory of {count_noun(len(sources.memories), 'instance')}{begin}"
    if sources.letters is not None:
        letters = describe_letters(len(sources.letters))
    store = " The store has no such job." if has_store else ""
    shown = repr(one_line(text[:MAX_SHOWN_LENGTH]))
    notes = (*reading.notes, *source_notes(sources, first=None))
    sentences = "".join(f" {note[0].upper()}{note[1:].rstrip('.')}." for note in notes)
    return (
        f"no message with the id {shown} was found{memory}.{letters}{store}{sentences} "
        "Check the id, or search the logs of the services for it."
    )


def describe_letters(count: int) -> str:
    """Return the sentence about dead letters without a match."""
    if not count:
        return " No dead letters were found."
    verb = "has" if count == 1 else "have"
    return f" {count_noun(count, 'dead letter')} at the broker {verb} another id."
