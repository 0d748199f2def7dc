"""`bus demo`: the reference application, from a recording to documents, on a real RabbitMQ where there is one."""

import asyncio
import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bus.cli.broker import signals, started
from bus.cli.output import table_console
from bus.errors import ConfigurationError, NotFound
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.select import BrokerChoice, select_broker
from bus.security.key_directory import KeyDirectory

__all__ = ["command"]

RECORDING = Path("examples/data/dictation.wav")
MOMENTS = {"dead-at", "first-failed-at"}
"""Headers in milliseconds since the epoch."""


def command(
    recording: Annotated[
        str | None,
        typer.Argument(metavar="RECORDING", help="A WAV: a path, or a file:, http: or https: URL."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Keep RabbitMQ's UI up at the end, until Ctrl-C.")
    ] = False,
    against_running: Annotated[
        bool, typer.Option("--against-running", help="Start no worker; use those at BUS_URL.")
    ] = False,
) -> None:
    """Watch a spoken dictation become a transcript, a note and documents, every step on one correlation id."""
    sys.path.insert(0, str(Path.cwd()))
    logging.getLogger("bus").setLevel(
        logging.CRITICAL
    )  # what goes wrong is told on the screen, once
    console = table_console()
    story = _story()
    choice = select_broker(os.environ, memory=True)
    if against_running and choice.kind != "named":
        raise ConfigurationError(
            "--against-running uses the workers of a RabbitMQ that runs: set BUS_URL=amqp://user:password@host/vhost"
        )
    asyncio.run(
        play(
            story, choice, console, _readable(recording), wait=wait, own_workers=not against_running
        )
    )


def _story() -> ModuleType:
    """The reference application, which is in the repository and not in the wheel."""
    try:
        importlib.import_module("workers.demo.stage")
        return importlib.import_module("workers.demo.story")
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith(("workers", "contracts")):
            raise ConfigurationError(
                f"the demonstration needs {error.name!r}: pip install 'trunkline[transcription,documents]'"
            ) from error
        raise ConfigurationError(
            "the demonstration is in the repository: clone it, and run `make demo` there"
        ) from error


def _readable(recording: str | None) -> str:
    """An absolute path, since the worker may run in another folder; URLs as they are. A file that is missing is told at once."""
    given = recording or str(RECORDING)
    if "://" in given or given.startswith("file:"):
        return given
    path = Path(given).expanduser()
    if not path.exists():
        raise NotFound(
            f"there is no file {path}; give a WAV file, or run this in the repository's folder"
        )
    return str(path.resolve())


async def play(
    story: ModuleType,
    choice: BrokerChoice,
    console: Console,
    recording: str,
    *,
    wait: bool,
    own_workers: bool,
) -> None:
    """Play the story on the chosen broker."""
    with signals() as stop:
        async with _staged(choice, console, stop, own_workers=own_workers) as (stage, broker):
            told = asyncio.ensure_future(tell(story, stage, console, recording))
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait({told, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not told.done():
                told.cancel()
                await asyncio.wait({told})
                raise KeyboardInterrupt
            told.result()
            if wait and broker is not None:
                _show_ui(console, broker)
                await stop.wait()


@contextlib.asynccontextmanager
async def _staged(
    choice: BrokerChoice, console: Console, stop: asyncio.Event, *, own_workers: bool
) -> AsyncIterator[tuple[Any, Broker | None]]:
    stages = importlib.import_module("workers.demo.stage")
    with tempfile.TemporaryDirectory(prefix="trunkline-keys-") as directory:
        keys = (
            importlib.import_module("workers.demo.keys").DemoKeys(KeyDirectory(Path(directory)))
            if own_workers
            else None
        )
        async with _stage(stages, choice, console, stop, keys) as staged:
            yield staged


@contextlib.asynccontextmanager
async def _stage(
    stages: Any, choice: BrokerChoice, console: Console, stop: asyncio.Event, keys: Any
) -> AsyncIterator[tuple[Any, Broker | None]]:
    if choice.kind == "memory":
        console.print(f"[bold]broker[/]  {choice.why}", highlight=False, soft_wrap=True)
        yield stages.MemoryStage(keys), None
        return
    async with started(choice, console, stop) as broker:
        if broker is None:
            raise KeyboardInterrupt
        console.print(
            f"[bold]broker[/]  {broker.describe()}: {choice.why}", highlight=False, soft_wrap=True
        )
        yield stages.RabbitMQStage(broker.url, keys), broker


async def tell(story: ModuleType, stage: Any, console: Console, recording: str) -> None:
    """Play it, and show each step as it is done."""
    steps: list[Any] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting the workers", total=1.0)

        def on_step(step: Any) -> None:
            steps.append(step)
            bar.console.print(
                f"[green]done[/]    {step.name}: {step.outcome}", highlight=False, soft_wrap=True
            )
            bar.update(task, completed=0, description="working")

        def on_progress(what: str, update: Any) -> None:
            bar.update(task, completed=update.progress, description=f"{what}: {update.note}")

        by_section = recording == _readable(None)
        ending = await story.Story(stage, on_step, on_progress, by_section=by_section).play(
            recording
        )
    _show(console, steps, ending)


def _show(console: Console, steps: list[Any], ending: Any) -> None:
    console.print()
    console.print(
        f"[bold]Transcript[/] ({ending.transcript.engine}, confidence {ending.transcript.confidence:.2f})"
    )
    for segment in ending.transcript.segments:
        console.print(
            f"  {segment.start:6.2f} s - {segment.end:6.2f} s  {segment.text}",
            highlight=False,
            soft_wrap=True,
        )
    console.print()
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
    console.print("[bold]Dead letter[/]")
    for name, value in sorted(ending.dead_letter.headers.items()):
        shown = (
            datetime.fromtimestamp(int(value) / 1000).astimezone().isoformat("T", "seconds")
            if name in MOMENTS
            else value
        )
        console.print(f"  {name:15} {shown}", highlight=False, soft_wrap=True)
    console.print()
    console.print(table_of(steps, ending.correlation_id))


def table_of(steps: Iterable[Any], correlation_id: str) -> Table:
    """A line a step; on a narrow screen what is long is folded and never cut."""
    table = Table(
        "step",
        "what came of it",
        "at",
        "took",
        "correlation",
        caption=f"correlation id {correlation_id}",
    )
    for step in steps:
        short = (step.correlation_id or "").partition("-")[0]
        table.add_row(
            step.name, step.outcome, f"{step.at:.2f} s", f"{step.took * 1000:.0f} ms", short
        )
    for column in (0, 1):
        table.columns[column].overflow = "fold"
    for column in (2, 3):
        table.columns[column].justify, table.columns[column].no_wrap = "right", True
    return table


def _show_ui(console: Console, broker: Broker) -> None:
    console.print(f"RabbitMQ's UI: {broker.management_url or 'unknown'}", highlight=False)
    console.print(
        f"the broker's URL, with its user and password: {broker.url}",
        highlight=False,
        soft_wrap=True,
    )
    console.print("Ctrl-C ends it.")
