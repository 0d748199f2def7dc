"""`bus demo`: run the reference application, which turns a recording into documents.

The demonstration uses a RabbitMQ if it finds one. If it finds none, it uses the model broker in
memory.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bus.cli.broker import POLL_INTERVAL_SECONDS, signals, started, until
from bus.cli.demo_output import print_result, print_ui
from bus.cli.output import table_console
from bus.errors import BusError, ConfigurationError, NotFound, Unavailable
from bus.messaging.escaped_text import one_line
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.select import BrokerChoice, select_broker
from bus.security.key_directory import KeyDirectory
from bus.transports.rabbitmq.queue_depth import depths

__all__ = ["command"]

RECORDING = Path("examples/data/dictation.wav")
NOTE_SECONDS = 5.0
"""Seconds without an answer of the workers, after which the command reports that it waits."""


def command(
    recording: Annotated[
        str | None,
        typer.Argument(
            metavar="RECORDING",
            help="A WAV file: a path, or a file:, http: or https: URL. Default: a sample.",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="At the end, keep RabbitMQ and its UI running until Ctrl-C."),
    ] = False,
    against_running: Annotated[
        bool,
        typer.Option(
            "--against-running",
            help="Use the workers that already run at BUS_URL, and start no workers.",
        ),
    ] = False,
) -> None:
    """Turn a spoken dictation into a transcript, a note and documents, step by step.

    The command runs the reference application, and shows the result of each step. All messages
    have one correlation id.
    """
    sys.path.insert(0, str(Path.cwd()))
    # The command prints each error itself, so the log must not print it again.
    logging.getLogger("bus").setLevel(logging.CRITICAL)
    console = table_console()
    story = _load_story()
    choice = select_broker(os.environ, memory=True)
    if against_running and choice.kind != "named":
        raise ConfigurationError(
            "--against-running requires the URL of a running RabbitMQ. "
            "Set BUS_URL=amqp://user:password@host/vhost."
        )
    path = _resolve_recording(recording)
    if not against_running:
        _report_missing_worker(console, recording)
    asyncio.run(play(story, choice, console, path, wait=wait, own_workers=not against_running))


def _load_story() -> ModuleType:
    """Import the reference application. The repository contains it, but the wheel does not."""
    try:
        importlib.import_module("workers.demo.stage")
        return importlib.import_module("workers.demo.story")
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith(("workers", "contracts")):
            raise ConfigurationError(
                f"`bus demo` requires {error.name!r}, which is not installed. "
                "Install it: pip install 'trunkline[transcription,documents]'."
            ) from error
        raise ConfigurationError(
            "`bus demo` requires the reference application, which only the repository contains. "
            "Clone the repository, and run `make demo` there."
        ) from error


def _report_missing_worker(console: Console, recording: str | None) -> None:
    """Print that the transcription worker is left out, if this machine cannot run it.

    Raises:
        ConfigurationError: The caller names a recording, which only that worker can transcribe.
    """
    if "transcription" in importlib.import_module("workers.demo.stage").runnable_services():
        return
    missing = "the transcription worker requires 'pocketsphinx', which is not installed"
    if recording is not None:
        raise ConfigurationError(
            f"the recording {recording} cannot be transcribed: {missing}. "
            "Install it: pip install 'trunkline[transcription]'."
        )
    console.print(
        f"[yellow]left out[/] {missing}. The demo begins with the sample's text.",
        highlight=False,
        soft_wrap=True,
    )


def _resolve_recording(recording: str | None) -> str:
    """Return a URL unchanged, or the absolute path of a file.

    The path is absolute because a worker may run in another directory.

    Raises:
        NotFound: The file does not exist.
    """
    name = recording or str(RECORDING)
    if "://" in name or name.startswith("file:"):
        return name
    path = Path(name).expanduser()
    if not path.exists():
        raise NotFound(
            f"the recording {path} does not exist. "
            "Name a WAV file, or run `bus demo` in the repository's folder."
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
    """Run the demonstration on the chosen broker until all steps are done or a signal arrives."""
    with signals() as stop:
        async with _open_stage(choice, console, stop, own_workers=own_workers) as (stage, broker):
            playing = asyncio.ensure_future(play_story(story, stage, console, recording))
            stopped = asyncio.ensure_future(until(stop, broker))
            await asyncio.wait({playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done() and isinstance(playing.exception(), Unavailable):
                # If the broker has just ended, its own error is the better one.
                await asyncio.wait({stopped}, timeout=2 * POLL_INTERVAL_SECONDS)
            if stopped.done():
                playing.cancel()
                await asyncio.wait({playing})
                stopped.result()
                raise KeyboardInterrupt
            stopped.cancel()
            playing.result()
            if wait and broker is not None:
                print_ui(console, broker)
                await until(stop, broker)


@contextlib.asynccontextmanager
async def _open_stage(
    choice: BrokerChoice, console: Console, stop: asyncio.Event, *, own_workers: bool
) -> AsyncIterator[tuple[Any, Broker | None]]:
    stages = importlib.import_module("workers.demo.stage")
    with tempfile.TemporaryDirectory(prefix="trunkline-keys-") as directory:
        keys = (
            importlib.import_module("workers.demo.keys").DemoKeys(KeyDirectory(Path(directory)))
            if own_workers
            else None
        )
        async with _stage_on_broker(stages, choice, console, stop, keys) as opened:
            yield opened


@contextlib.asynccontextmanager
async def _stage_on_broker(
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
        yield stages.RabbitMQStage(broker.url, keys, partial(_count_consumers, broker.url)), broker


async def _count_consumers(url: str, queue: str) -> int | None:
    """Return the number of consumers of a queue, or None if the broker does not tell it."""
    try:
        depth = (await depths(url, [queue]))[queue]
    except BusError:
        return None
    return depth.consumers if depth.last_error is None else None


async def play_story(story: ModuleType, stage: Any, console: Console, recording: str) -> None:
    """Run the demonstration's steps, and print each step when it is done."""
    steps: list[Any] = []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting the workers", total=1.0)
        # Only a terminal shows the bar.
        note = "[yellow]waiting[/] for the answers of the workers"
        waiting = asyncio.get_running_loop().call_later(NOTE_SECONDS, bar.console.print, note)

        def on_step(step: Any) -> None:
            waiting.cancel()
            steps.append(step)
            bar.console.print(
                f"[green]done[/]    {step.name}: {escape(one_line(step.outcome))}",
                highlight=False,
                soft_wrap=True,
            )
            bar.update(task, completed=0, description="working")

        def on_progress(activity: str, update: Any) -> None:
            bar.update(
                task, completed=update.progress, description=f"{activity}: {one_line(update.note)}"
            )

        by_section = recording == _resolve_recording(None)
        playing = story.Story(stage, on_step, on_progress, by_section=by_section)
        try:
            ending = await playing.play(recording)
        finally:
            waiting.cancel()
    print_result(console, steps, ending)
