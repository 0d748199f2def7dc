"""`bus services --watch`: a display that is refreshed in place, or lines for a pipe."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bus.cli.broker import signals
from bus.cli.live_loop import show_until_stopped
from bus.cli.output import print_json, table_console
from bus.cli.services.as_json import services_to_json
from bus.cli.services.detail import service_detail
from bus.cli.services.list_table import services_table
from bus.messaging.control import GetStats, Target
from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.topology.control import COMMANDS
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from bus.runtime.discovery.measurements import Measurements
from bus.runtime.discovery.open_asker import open_asker
from bus.runtime.discovery.service_summary import ServiceSummary, summarize_services
from bus.settings import Settings
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["ServiceWatch", "watch_services"]

REDRAW_SECONDS = 1.0


async def watch_services(
    settings: Settings,
    target: Target,
    *,
    interval: float,
    window: float,
    as_json: bool,
    as_service: str | None = None,
) -> None:
    """Show the services, and each change, until Ctrl-C, SIGTERM or the end of the pipe's reader.

    Raises:
        Unavailable: The broker does not answer at the start. If it does not answer later, the
            display shows the error, and the command tries again.
        PermissionDenied: The command has no right to ask.
        typer.Exit: The reader of the output has closed the pipe.
    """
    transport = RabbitMQTransport(settings, name=COMMANDS)
    async with open_asker(settings, service=as_service, transport=transport) as asker:
        view = LiveView()
        feed = LiveFeed(
            asker,
            view,
            GetStats(),
            target,
            interval=interval,
            window=window,
            depth=transport.depth,
        )
        watch = ServiceWatch(view, feed, target)
        console = table_console()
        with signals() as stop:
            if as_json:
                await show_until_stopped(feed, watch.print_json, stop)
            elif sys.stdout.isatty() and not console.is_dumb_terminal:
                with live_display(console) as show:
                    await show_until_stopped(
                        feed, lambda: show(watch.render(console)), stop, redraw=REDRAW_SECONDS
                    )
            else:
                await show_until_stopped(feed, lambda: watch.print_block(console), stop)


@contextmanager
def live_display(console: Console) -> Iterator[Callable[[RenderableType], None]]:
    """Return a context manager for a display that is refreshed in place, on a terminal."""
    with Live(console=console, auto_refresh=False) as live:
        yield lambda shown: live.update(shown, refresh=True)


class ServiceWatch:
    """The state of services over time, in the forms of a terminal, of a pipe and of JSON."""

    def __init__(self, view: LiveView, feed: LiveFeed, target: Target) -> None:
        self._view, self._feed, self._target = view, feed, target
        self._measurements = Measurements()
        self._services: list[ServiceSummary] = []
        self._seen = 0

    def services(self) -> list[ServiceSummary]:
        """Return the summaries of the services now."""
        if self._view.changes != self._seen:
            self._seen = self._view.changes
            instances = self._view.instances(self._target.service)
            self._measurements.record(instances)
            self._services = summarize_services(instances, self._measurements)
        return self._services

    def render(self, console: Console) -> RenderableType:
        """Return the state as a table, with an error of the broker above it."""
        services = self.services()
        head = Text(f"{self._head(services)}, at {time.strftime('%H:%M:%S')}", style="dim")
        parts: list[RenderableType] = [head]
        if self._feed.error is not None:
            parts.append(Text(one_line(f"error: {self._feed.error}"), style="red"))
        if not services and self._feed.error is None:
            parts.append(Text("no instance answers", style="yellow"))
        elif services and self._target.service is None:
            parts.append(services_table(services, console))
        elif services:
            parts.append(service_detail(services[0], console))
        return Group(*parts)

    def _head(self, services: list[ServiceSummary]) -> str:
        instances = sum(len(service.live) for service in services)
        live = [service for service in services if service.live]
        return f"{count_noun(len(live), 'service')}, {count_noun(instances, 'instance')}"

    def print_block(self, console: Console) -> None:
        """Print the state as a block of lines with an empty line below it."""
        console.print(self.render(console))
        console.print()

    def print_json(self) -> None:
        """Print the state as one line of JSON."""
        error = None if self._feed.error is None else str(self._feed.error)
        print_json(services_to_json(self.services(), at=time.time(), error=error), compact=True)
