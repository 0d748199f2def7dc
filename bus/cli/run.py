"""`bus run`: serve a router in one process or in several processes."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bus.cli.errors import is_debugging
from bus.cli.loading import load_router
from bus.cli.output import say
from bus.cli.process_supervisor import Command, run_processes
from bus.messaging.failure_location import failure_location
from bus.operations.health import ProbeAddress, serve_probes
from bus.operations.logging import configure_logging
from bus.runtime.bus import Bus
from bus.runtime.exits import raises_interrupts
from bus.runtime.router import Router
from bus.settings import Settings, load_settings

__all__ = ["command"]

log = logging.getLogger("bus")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CANCEL_AGAIN_SECONDS = 0.5
"""Seconds between two cancellations of the service. A second signal causes both of them.

In this time the service closes its connection, which takes about 0.05 s.
"""


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:ROUTER", help="The router, for example workers.transcription:router."
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
    """Serve a router until SIGTERM or Ctrl-C.

    The first signal stops the worker cleanly: it takes no new messages, and running handlers have
    BUS_STOP_GRACE seconds to finish. A second signal stops the worker immediately, and the broker
    delivers unfinished messages again. If BUS_HEALTH_PORT is set, the worker answers /livez and
    /readyz on that port.
    """
    settings = load_settings()
    health = (settings.health_host, settings.health_port) if settings.health_port else None
    if processes > 1 or reload:
        options = ["--debug"] if is_debugging() else []
        arguments = [sys.executable, "-m", "bus.cli", *options, "run", target]
        supervised = Command(arguments=arguments, processes=processes, reload=reload, health=health)
        raise typer.Exit(asyncio.run(run_processes(supervised)))
    router = load_router(target)
    started, stop = partial(_notify_parent, notification_fd), asyncio.Event()
    serving = serve(router, settings, health_socket or health, started, stop)
    raise typer.Exit(run_worker(serving, stop))


def run_worker(serving: Coroutine[Any, Any, int], stop: asyncio.Event) -> int:
    """Run the service, and stop it cleanly if a task or a callback calls `sys.exit`.

    asyncio raises such an exit out of the event loop. An exit of a handler never arrives here,
    because it fails the handler's message.

    Args:
        serving: The coroutine that serves until `stop` is set, and returns the exit code.
        stop: The event that stops the service.

    Returns:
        The exit code. After `sys.exit` it is never 0, because the operator did not stop the worker.
    """
    with asyncio.Runner() as runner:
        loop, requested = runner.get_loop(), 0
        loop.set_exception_handler(_on_loop_error)
        main = loop.create_task(serving)
        while True:
            try:
                return loop.run_until_complete(main) or requested
            except (SystemExit, KeyboardInterrupt) as error:
                if isinstance(error, KeyboardInterrupt) and raises_interrupts():
                    raise  # Ctrl-C before the service handles signals
                if not requested:
                    _log_exit(error)
                requested = _exit_code_of(error)
                if main.done():
                    return requested
                stop.set()


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that no task has retrieved, unless it is an exit. `run_worker` logs exits."""
    if not isinstance(context.get("exception"), (SystemExit, KeyboardInterrupt)):
        loop.default_exception_handler(context)


def _log_exit(error: BaseException) -> None:
    # The text of the error is not logged, because it can be confidential.
    facts = {"error": type(error).__name__, "where": failure_location(error)}
    log.error(
        "%s outside of a handler at %s; the worker stops. "
        "Raise another exception, or send SIGTERM to the process",
        *facts.values(),
        extra=facts,
    )


def _exit_code_of(error: BaseException) -> int:
    code = error.code if isinstance(error, SystemExit) else None
    return code & 0xFF or os.EX_SOFTWARE if isinstance(code, int) else os.EX_SOFTWARE


async def serve(
    router: Router,
    settings: Settings,
    health: ProbeAddress | None,
    started: Callable[[], None],
    stop: asyncio.Event,
) -> int:
    """Serve the router until SIGINT or SIGTERM.

    Args:
        router: Router to serve.
        settings: Settings of the router's bus.
        health: Address of the health probes. If None, health probes are not answered.
        started: Function that is called once, when every consumer is ready.
        stop: Event that stops the service cleanly. The signals set it.

    Returns:
        The exit code: 0 after a clean stop, 128 plus the signal's number after a second signal.
    """
    configure_logging(settings, overwrite=False, all_frames=is_debugging())
    warn_if_disabled()
    serving = asyncio.ensure_future(
        serve_until(router, stop, Bus(router.name, settings=settings), health, started)
    )
    with signals(stop, serving) as received:
        try:
            await serving
        except asyncio.CancelledError:
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


def _do_nothing() -> None:
    """Do nothing; this function is the default of `started`."""


async def serve_until(
    router: Router,
    stop: asyncio.Event,
    bus: Bus,
    health: ProbeAddress | None,
    started: Callable[[], None] = _do_nothing,
) -> None:
    """Serve the router until `stop` is set.

    The server of the health probes starts before the connection to the broker is opened, and stops
    after the connection is closed.

    Args:
        router: Router to serve.
        stop: Event that stops the service cleanly.
        bus: Bus of the service, not yet connected.
        health: Address of the health probes. If None, health probes are not answered.
        started: Function that is called once, when every consumer is ready.
    """

    async def ready() -> str | None:
        if stop.is_set():
            return "stopping"
        return None if bus.ready else "not every consumer is registered at the broker"

    async with serve_probes(health, ready=ready), bus, bus.serving(router):
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


def _notify_parent(notification_fd: int | None) -> None:
    """Notify the parent that this process is ready. Ignore the error if the parent has ended."""
    if notification_fd is not None:
        with contextlib.suppress(OSError):
            os.write(notification_fd, b"\n")


@contextlib.contextmanager
def signals(stop: asyncio.Event, serving: "asyncio.Future[None]") -> Iterator[list[int]]:
    """Set `stop` at the first signal and cancel `serving` at the second signal.

    The block gets a list, to which each received signal is appended.
    """
    loop, received = asyncio.get_running_loop(), list[int]()

    def on_signal(number: int) -> None:
        received.append(number)
        if stop.is_set():
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
