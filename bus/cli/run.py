"""`bus run`: serve routers in one process or in several processes."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bus.cli.env_file import current_file
from bus.cli.env_file_rules import LOGGING
from bus.cli.errors import is_debugging, show_traceback
from bus.cli.loading import load_routers
from bus.cli.metrics_pages import child_pages, worker_pages
from bus.cli.output import say
from bus.cli.process_supervisor import Command, run_processes
from bus.cli.run_together import cancelled_by_other_code, run_together
from bus.cli.worker_loop import run_worker
from bus.operations.health import serve_probes
from bus.operations.http_address import HttpAddress
from bus.operations.logging import configure_logging
from bus.runtime.bus import Bus
from bus.runtime.endpoint_consumer import DEPENDENCY_PAUSE
from bus.runtime.jobs.store_health import STORE_AWAY
from bus.runtime.operator_pause import OPERATOR_PAUSE, STUCK_HANDLER
from bus.runtime.router import Router
from bus.settings import Settings, load_settings
from bus.settings.variables import describe_unknown_variables

__all__ = ["command"]

log = logging.getLogger("bus")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FORCING_SIGNAL = 2
"""Number of the signal that ends a clean stop."""
CANCEL_AGAIN_SECONDS = 0.5
"""Seconds between two cancellations of the service. A second signal causes both of them.

In this time the service closes its connection, which takes about 0.05 s.
"""


def command(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:ROUTER",
            show_default=False,
            help="The router, for example workers.transcription:router. Several routers of "
            "different services share the process.",
        ),
    ],
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Number of worker processes. A process that ends unexpectedly is restarted.",
        ),
    ] = 1,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Restart when a Python file below this folder changes."),
    ] = False,
    health_socket: Annotated[
        Path | None,
        typer.Option(hidden=True, help="Socket on which the parent probes this process's health."),
    ] = None,
    notification_fd: Annotated[
        int | None,
        typer.Option(
            hidden=True,
            help="File descriptor on which this process notifies its parent that it is ready.",
        ),
    ] = None,
) -> None:
    """Serve routers until SIGTERM or Ctrl-C.

    The first signal stops the worker cleanly: it takes no new messages, and running handlers have
    BUS_STOP_GRACE seconds to finish. A second signal stops the worker immediately, and the broker
    delivers unfinished messages again. If BUS_HEALTH_PORT is set, the worker answers /livez and
    /readyz on that port, and /metrics if the extra `metrics` is installed.

    Several routers are several services. Each service has its own connection and its own key: set
    BUS_KEY to the directory with their key files. All services share the other settings and the
    health port. If one service cannot start, the worker ends.
    """
    settings = load_settings()
    if settings.debug:
        show_traceback()
    health = (settings.health_host, settings.health_port) if settings.health_port else None
    if processes > 1 or reload:
        options = ["--debug"] if is_debugging() else []
        arguments = [sys.executable, "-m", "bus.cli", *options, "run", *targets]
        for _, line in describe_env_file():
            say(f"bus run: {line}")
        warn_if_hidden(settings)
        supervised = Command(arguments=arguments, processes=processes, reload=reload, health=health)
        raise typer.Exit(asyncio.run(run_processes(supervised)))
    routers = load_routers(targets)
    started, stop = partial(_notify_parent, notification_fd), asyncio.Event()
    serving = serve(routers, settings, health_socket or health, started, stop)
    raise typer.Exit(run_worker(serving, stop, debug=settings.debug))


async def serve(
    routers: Sequence[Router],
    settings: Settings,
    health: HttpAddress | None,
    started: Callable[[], None],
    stop: asyncio.Event,
) -> int:
    """Serve the routers until SIGINT or SIGTERM.

    Args:
        routers: Routers to serve, each of a different service.
        settings: Settings of the bus of each router.
        health: Address of the health probes. If None, health probes are not answered.
        started: Function that is called once, when every consumer is ready.
        stop: Event that stops the service cleanly. The signals set it.

    Returns:
        The exit code: 0 after a clean stop, 128 plus the signal's number after a second signal.

    Raises:
        Internal: Other code cancelled the service.
    """
    configure_logging(settings, overwrite=False, all_frames=is_debugging())
    warn_if_disabled()
    log_environment(settings)
    services = [(router, Bus(router.name, settings=settings)) for router in routers]
    serving = asyncio.ensure_future(serve_until(services, stop, health, started))
    with signals(stop, serving) as received:
        try:
            await serving
        except asyncio.CancelledError:
            if len(received) < FORCING_SIGNAL:
                names = ", ".join(router.name for router in routers)
                raise cancelled_by_other_code(names) from None
            return 128 + received[-1]
    return 0


def warn_if_disabled() -> None:
    """Warn the operator if the application's logging configuration disabled the bus's loggers.

    `logging.config.dictConfig` disables all existing loggers by default. The worker would then log
    none of its failures.
    """
    if log.disabled:
        say(
            "bus run: the logging configuration of the application disabled the loggers of the "
            "bus, so no failure is logged. Set disable_existing_loggers to False."
        )


def describe_env_file() -> Iterator[tuple[int, str]]:
    """Yield a level and a line for each kind of names in the file `.env` of this process."""
    if file := current_file():
        yield from ((logging.WARNING, line) for line in file.describe_problems())
        lines = (file.describe_taken(), file.describe_other())
        yield from ((logging.INFO, line) for line in lines if line is not None)


def log_environment(settings: Settings) -> None:
    """Log the names in the file `.env`, and warn of variables that are not settings.

    If the file sets a level or format of the log that hides a line, print this line instead.

    The routers must be loaded before, because their modules define the settings of the service.
    """
    unknown = ((logging.WARNING, line) for line in describe_unknown_variables(os.environ))
    for level, line in (*describe_env_file(), *unknown):
        if file_hides(level, settings):
            say(f"bus run: {line}")
        else:
            log.log(level, "%s", line)
    warn_if_hidden(settings)


def file_hides(level: int, settings: Settings) -> bool:
    """Return True if the file `.env` sets the log so that records of this level are not logged."""
    file = current_file()
    if file is None or LOGGING.keys().isdisjoint(file.taken):
        return False
    lowest = logging.getLevelNamesMapping()[settings.log_level.upper()]
    return settings.log_format == "none" or level < lowest


def warn_if_hidden(settings: Settings) -> None:
    """Print the warning of `BUS_AUTH=off` if the file `.env` hides it from the log."""
    if settings.auth == "off" and file_hides(logging.WARNING, settings):
        say(
            "bus run: BUS_AUTH=off: messages are neither signed nor verified, "
            "and any client of the broker can act as any service"
        )


def _do_nothing() -> None:
    """Do nothing; this function is the default of `started`."""


async def serve_until(
    services: Sequence[tuple[Router, Bus]],
    stop: asyncio.Event,
    health: HttpAddress | None,
    started: Callable[[], None] = _do_nothing,
) -> None:
    """Serve routers until `stop` is set.

    The server of the health probes starts before the connections to the broker are opened, and
    stops after the connections are closed. If a service fails, the other services are stopped.

    Args:
        services: Routers, each with the bus of its service, not yet connected.
        stop: Event that stops the services cleanly.
        health: Address of the health probes. If None, health probes are not answered.
        started: Function that is called once, when every consumer of all services is ready.
    """
    starting = len(services)

    async def ready() -> str | None:
        if stop.is_set():
            return "stopping"
        is_ready = all(bus.ready for _, bus in services)
        if not is_ready and any(bus.report.is_store_away for _, bus in services):
            return STORE_AWAY
        return None if is_ready else "not every consumer is registered at the broker"

    def note() -> str:
        reasons = {reason for _, bus in services for reason in bus.report.pauses}
        # The answer to a probe has no names, because other hosts can read it.
        notes = []
        if any(reason.startswith(DEPENDENCY_PAUSE) for reason in reasons):
            notes.append("paused: a dependency is down")
        if OPERATOR_PAUSE in reasons:
            notes.append("paused: an operator has paused consumers")
        if STUCK_HANDLER in reasons:
            notes.append("degraded: the handler of a cancelled job does not end")
        return ", ".join(notes)

    async def serve_one(router: Router, bus: Bus) -> None:
        nonlocal starting
        async with bus, bus.serving(router):
            starting -= 1
            if not starting:
                started()
            await stop.wait()
            # Tell the user why the process does not end immediately: the grace period can be long.
            grace = bus.settings.stop_grace
            log.info(
                "%s is stopping within %g s; a second signal stops at once",
                router.name,
                grace,
                extra={"service": router.name, "grace": grace},
            )
        log.info("%s stopped", router.name, extra={"service": router.name})

    buses = [bus for _, bus in services]
    # Only a child process has its health probes on a Unix socket.
    pages = child_pages(buses) if isinstance(health, Path) else worker_pages(buses)
    async with serve_probes(health, ready=ready, note=note, pages=pages):
        await run_together({bus.service: serve_one(router, bus) for router, bus in services}, stop)


def _notify_parent(notification_fd: int | None) -> None:
    """Notify the parent that this process is ready. Ignore the error if the parent has ended."""
    if notification_fd is not None:
        with contextlib.suppress(OSError):
            os.write(notification_fd, b"\n")


@contextlib.contextmanager
def signals(stop: asyncio.Event, serving: "asyncio.Future[None]") -> Iterator[list[int]]:
    """Set `stop` at the first signal and cancel `serving` at the second signal.

    If an exit of the service's code has set `stop`, the next signal is still the first one.

    The block gets a list, to which each received signal is appended.
    """
    loop, received = asyncio.get_running_loop(), list[int]()

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) >= FORCING_SIGNAL:
            # If both signals arrive in the same turn of the event loop, the task has not seen
            # `stop` yet. It would treat a cancellation as a clean stop. Therefore cancel the task
            # in the next turn.
            loop.call_soon(serving.cancel)
            # If the first cancellation interrupts the start of the service, the task begins a
            # clean stop. A second cancellation ends this clean stop.
            loop.call_later(CANCEL_AGAIN_SECONDS, serving.cancel)
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, int(number))
    try:
        yield received
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
