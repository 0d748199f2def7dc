"""`bus run`: serve a router, in one process or several."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bus.cli.loading import load_router
from bus.cli.process_supervisor import Command, run_processes
from bus.operations.health import ProbeAddress, serve_probes
from bus.operations.logging import configure_logging
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings, load_settings

__all__ = ["command"]

log = logging.getLogger("bus")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CANCEL_AGAIN = 0.5
"""Seconds that what is told to stop now has to clean up; a connection's goodbye takes a tenth of it."""


def command(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:ROUTER", help="For example workers.transcription:router."),
    ],
    processes: Annotated[
        int,
        typer.Option(
            min=1, max=64, metavar="N", help="Worker processes; one that dies is started again."
        ),
    ] = 1,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Start anew when a Python file below this folder changes."),
    ] = False,
    health_socket: Annotated[
        Path | None, typer.Option(hidden=True, help="Where a parent asks how this process is.")
    ] = None,
    notification_fd: Annotated[
        int | None, typer.Option(hidden=True, help="Where a parent hears once that it is ready.")
    ] = None,
) -> None:
    """Serve a router until SIGTERM or Ctrl-C.

    The first signal stops cleanly: no new messages, what runs finishes within BUS_STOP_GRACE seconds. A second stops
    now; what was unfinished is delivered again. With BUS_HEALTH_PORT it answers /livez and /readyz there.
    """
    settings = load_settings()
    health = (settings.health_host, settings.health_port) if settings.health_port else None
    if processes > 1 or reload:
        arguments = [sys.executable, "-m", "bus.cli", "run", target]
        several = Command(arguments=arguments, processes=processes, reload=reload, health=health)
        raise typer.Exit(asyncio.run(run_processes(several)))
    raise typer.Exit(
        asyncio.run(
            serve(
                load_router(target),
                settings,
                health_socket or health,
                partial(_tell, notification_fd),
            )
        )
    )


async def serve(
    router: Router, settings: Settings, health: ProbeAddress | None, started: Callable[[], None]
) -> int:
    """Serve until a signal; the exit code: 0 after a clean stop, 128 + the signal's number after a second one.

    `started` is called once, when every consumer is ready.
    """
    configure_logging(settings)
    stop = asyncio.Event()
    serving = asyncio.ensure_future(
        serve_until(router, stop, Bus(router.name, settings=settings), health, started)
    )
    with signals(stop, serving) as received:
        try:
            await serving
        except asyncio.CancelledError:
            return 128 + received[-1]
    return 0


def _nobody() -> None:
    """Nobody wants to know."""


async def serve_until(
    router: Router,
    stop: asyncio.Event,
    bus: Bus,
    health: ProbeAddress | None,
    started: Callable[[], None] = _nobody,
) -> None:
    """Serve until `stop` is set, and answer health probes meanwhile, from before the first connection until after the last."""

    async def ready() -> str | None:
        if stop.is_set():
            return "stopping"
        return None if bus.ready else "not every consumer is registered at the broker"

    async with serve_probes(health, ready=ready), bus, bus.serving(router):
        started()
        await stop.wait()
        # Who has pressed Ctrl-C should not wonder for the whole grace.
        log.info(
            "stopping; a second signal ends it at once",
            extra={"service": router.name, "grace": bus.settings.stop_grace},
        )
    log.info("stopped", extra={"service": router.name})


def _tell(notification_fd: int | None) -> None:
    """Tell the parent; one that is gone needs to know nothing."""
    if notification_fd is not None:
        with contextlib.suppress(OSError):
            os.write(notification_fd, b"\n")


@contextlib.contextmanager
def signals(stop: asyncio.Event, serving: "asyncio.Future[None]") -> Iterator[list[int]]:
    """The first signal sets `stop`, a second cancels `serving`; yields what has been received."""
    loop, received = asyncio.get_running_loop(), list[int]()

    def on_signal(number: int) -> None:
        received.append(number)
        if stop.is_set():
            # In the loop's next turn: both may arrive in this one, and a task that has not seen `stop` yet would take
            # the cancellation for the wish to stop cleanly.
            loop.call_soon(serving.cancel)
            # A start that is cancelled stops cleanly; this one ends that stop, too.
            loop.call_later(CANCEL_AGAIN, serving.cancel)
        stop.set()

    for each in SIGNALS:
        loop.add_signal_handler(each, on_signal, int(each))
    try:
        yield received
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
