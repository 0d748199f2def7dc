"""The command `bus top`."""

import asyncio
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from bus.cli.broker import signals
from bus.cli.broker_name import name_broker
from bus.cli.live_loop import show_until_stopped
from bus.cli.options import finite
from bus.cli.output import suppress_library_logs, table_console
from bus.cli.sender import AsAsker
from bus.cli.services.commands import check_service
from bus.cli.services.questions import no_answer
from bus.cli.top.keys import read_keys
from bus.cli.top.operations import Sort
from bus.cli.top.queues import QueueReader
from bus.cli.top.screen import TopScreen
from bus.messaging.control import GetStats, Target
from bus.messaging.topology.control import COMMANDS
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["command"]

SORT_OF_KEY: dict[str, Sort] = {"r": "rate", "p": "p99", "e": "errors"}
KEYS = "sort by: r rate  p p99  e errors    q quit"
REDRAW_SECONDS = 1.0


def command(
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE",
            show_default=False,
            help="Show only this service. Default: all services.",
        ),
    ] = None,
    *,
    interval: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=3600,
            callback=finite,
            metavar="SECONDS",
            help="Time between two questions, over which rates and durations are computed.",
        ),
    ] = 2.0,
    sort: Annotated[
        Sort, typer.Option(help="Show the operations with the largest value first.")
    ] = "rate",
    once: Annotated[
        bool, typer.Option("--once", help="Print the tables once, after one interval, and end.")
    ] = False,
    as_service: AsAsker = None,
) -> None:
    """Show rates, latencies, errors, queues and dead letters on a live screen.

    The screen shows the attempts of the last interval: their number per second, the failed ones per
    second, and their durations (p50, p99, max). "delay p99" is the time from the publish of a
    message to its first attempt. "oldest" is the time for which the oldest running message has run.
    "waiting" is the number of ready messages in the queue and of queued jobs in the store. The
    time of an operation includes the services that it calls.

    On the screen, the keys r, p and e sort by rate, p99 and errors, and q or Ctrl-C ends the
    command. The sort by p99 also puts an operation first if a message runs longer. If not all rows
    fit, failing and slow operations are shown. In a pipe the command prints the tables once.

    The command needs the right `control.read`. It reads the queues from RabbitMQ's management API
    (BUS_MANAGEMENT_URL). Without the API it shows only the queues of live instances.
    """
    if service is not None:
        check_service(service)
    settings, console = load_settings(), table_console()
    is_screen = sys.stdout.isatty() and not console.is_dumb_terminal and not once
    with suppress_library_logs():
        asyncio.run(
            show_top(
                settings,
                console,
                service,
                interval=interval,
                sort=sort,
                is_screen=is_screen,
                as_service=as_service,
            )
        )


async def show_top(
    settings: Settings,
    console: Console,
    service: str | None,
    *,
    interval: float,
    sort: Sort,
    is_screen: bool,
    as_service: str | None,
) -> None:
    """Ask the instances at an interval, and show the screen until its end, or once.

    Raises:
        Unavailable: The broker does not answer at the start. If it does not answer later, the
            screen shows the error, and the command tries again.
        PermissionDenied: The command has no right to ask.
    """
    transport = RabbitMQTransport(settings, name=COMMANDS)
    async with open_asker(settings, service=as_service, transport=transport) as asker:
        view, window = LiveView(), min(1.0, interval)
        feed = LiveFeed(
            asker,
            view,
            GetStats(),
            Target(service),
            interval=interval,
            window=window,
            depth=transport.depth,
        )
        queues = QueueReader(settings, service, view.live)
        screen = TopScreen(view, feed, queues, service=service, sort=sort)
        if is_screen:
            await run_screen(console, feed, queues, screen, interval)
            return
        await feed.ask()
        screen.update()
        if not view.live():
            raise await no_answer(asker, service, window, broker=name_broker(settings))
        await asyncio.gather(queues.read(), asyncio.sleep(interval - window))
        await feed.ask()
        console.print(screen.render(console))


async def run_screen(
    console: Console, feed: LiveFeed, queues: QueueReader, screen: TopScreen, interval: float
) -> None:
    """Show the full screen until q, Ctrl-C or SIGTERM. Then restore the terminal."""
    # A signal that arrives while the screen appears must not end the process at once.
    with signals() as stop, Live(console=console, screen=True, auto_refresh=False) as live:

        def draw() -> None:
            live.update(screen.render(console, height=console.height, keys=KEYS), refresh=True)

        with read_keys(key_reader(screen, stop, draw)):
            reading = asyncio.ensure_future(queues.run(interval, draw))
            reading.add_done_callback(lambda _: stop.set())
            try:
                draw()
                await show_until_stopped(feed, draw, stop, redraw=REDRAW_SECONDS)
                if reading.done():  # only a bug ends it
                    reading.result()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


def key_reader(
    screen: TopScreen, stop: asyncio.Event, draw: Callable[[], None]
) -> Callable[[str], None]:
    """Return the function that handles the keys of the screen."""

    def on_key(key: str) -> None:
        if key in {"q", "Q"}:
            stop.set()
        elif sort := SORT_OF_KEY.get(key.lower()):
            screen.sort = sort
            draw()

    return on_key
