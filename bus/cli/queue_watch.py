"""`bus queues --watch`: a display that is refreshed in place, or lines for a pipe."""

import asyncio
import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bus.cli.broker import signals
from bus.cli.output import print_json, table_console
from bus.cli.queue_table import notes, print_report, report_to_json, table
from bus.errors import BusError
from bus.messaging.escaped_text import one_line
from bus.operations.queue_inspection import BrokerAddress, QueueFilter, QueueReport, inspect_queues
from bus.settings import Settings

__all__ = ["update_live", "update_piped", "watch_queues"]

CLOSED_PIPE_EXIT_CODE = 1
Update = Callable[[QueueReport | BusError], None]
"""Function that shows a report, or the reason why there is none."""


async def watch_queues(
    settings: Settings, selection: QueueFilter, seconds: float, *, as_json: bool
) -> None:
    """Show the queues every `seconds`, until Ctrl-C, SIGTERM or the end of the pipe's reader.

    If the broker does not answer, show the error, and try again at the next refresh.

    Raises:
        typer.Exit: The reader of the output has closed the pipe.
    """
    with (
        signals() as stop,
        stop_when_closed(stop) as is_closed,
        open_display(as_json=as_json) as update,
    ):
        while not stop.is_set():
            inspection = asyncio.ensure_future(inspect_once(settings, selection))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({inspection, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if inspection.done():
                update(read_outcome(inspection))
                await asyncio.wait({stopping}, timeout=seconds)
            inspection.cancel()
            stopping.cancel()
    if is_closed():
        raise typer.Exit(CLOSED_PIPE_EXIT_CODE)


async def inspect_once(settings: Settings, selection: QueueFilter) -> QueueReport:
    """Inspect the queues. The password file is read again, because its content can have changed."""
    return await inspect_queues(BrokerAddress.of(settings, renew=False), selection)


def read_outcome(inspection: "asyncio.Future[QueueReport]") -> QueueReport | BusError:
    """Return the report of an inspection, or its error if a command shows it to the user."""
    error = inspection.exception()
    if error is None:
        return inspection.result()
    if isinstance(error, BusError):
        return error
    raise error


@contextmanager
def stop_when_closed(stop: asyncio.Event) -> Iterator[Callable[[], bool]]:
    """Set `stop` when the reader of standard output closes the pipe, such as `head -1`.

    Without this function the command would notice only at the next refresh.

    The block gets a function that returns True if the reader has closed the pipe.
    """
    descriptor, loop, closed = _pipe_of_output(), asyncio.get_running_loop(), asyncio.Event()
    if descriptor is None:
        yield closed.is_set
        return

    def on_close() -> None:
        loop.remove_reader(descriptor)
        closed.set()
        stop.set()

    # Nothing can be read from this end. The event loop reports only that the other end is closed.
    loop.add_reader(descriptor, on_close)
    try:
        yield closed.is_set
    finally:
        loop.remove_reader(descriptor)


def _pipe_of_output() -> int | None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        descriptor = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return descriptor
    return None


def open_display(*, as_json: bool) -> AbstractContextManager[Update]:
    """Return a context manager for the output. The block gets the function that updates it."""
    console = table_console()
    if as_json:
        return contextlib.nullcontext(update_json)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return open_live_display(console)
    return contextlib.nullcontext(lambda seen: update_piped(console, seen))


@contextmanager
def open_live_display(console: Console) -> Iterator[Update]:
    """Refresh the table in place, on a terminal."""
    with Live(console=console, auto_refresh=False) as live:
        yield lambda seen: update_live(live, seen)


def update_json(seen: QueueReport | BusError) -> None:
    """Print a report as one line of JSON. An error has the key `error`."""
    value = {"error": str(seen)} if isinstance(seen, BusError) else report_to_json(seen)
    print_json(value, compact=True)


def update_piped(console: Console, seen: QueueReport | BusError) -> None:
    """Print a report as a block of lines with an empty line below it. An error is one line."""
    if isinstance(seen, BusError):
        at = time.strftime("%H:%M:%S")
        console.print(Text(one_line(f"at {at}: error: {seen}")), soft_wrap=True)
        return
    print_report(seen, console)
    console.print()


def update_live(live: Live, seen: QueueReport | BusError) -> None:
    """Show a report on the live display."""
    if isinstance(seen, BusError):
        live.update(Text(one_line(f"error: {seen}"), style="red"), refresh=True)
        return
    # Show the notes above the table: rich cuts off the lines that do not fit on the screen.
    lines = (Text.from_markup(line, emoji=False) for line in notes(seen))
    live.update(Group(*lines, table(seen)), refresh=True)
