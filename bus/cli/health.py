"""`bus health`: report the state of a worker on this machine as an exit code.

A container without curl can use the command as its health check.
"""

import asyncio
from typing import Annotated

import typer

from bus.cli.options import finite
from bus.errors import BusError, ConfigurationError
from bus.messaging.escaped_text import one_line
from bus.operations.health import LIVE, READY, read_probe
from bus.settings import load_settings

__all__ = ["command"]

UNHEALTHY = 1
"""Exit code that Docker interprets as unhealthy. Docker reserves the exit code 2."""
PROBE_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
"""Addresses that mean all interfaces, each with the local address that the probe uses instead."""


def command(
    live: Annotated[
        bool, typer.Option("--live", help="Check only that the worker's event loop runs.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=60, callback=finite, metavar="SECONDS", help="Time to wait for the answer."
        ),
    ] = 3,
) -> None:
    """Check whether a worker on this machine is ready: exit code 0 if ready, 1 if not.

    A worker is ready if every consumer of each of its processes is registered at the broker. The
    command sends a health probe to BUS_HEALTH_PORT. Therefore run the command with the same
    environment as the worker's `bus run`.
    """
    settings = load_settings()
    if settings.health_port is None:
        raise ConfigurationError(
            "BUS_HEALTH_PORT is not set, so `bus run` does not answer health probes. "
            "Set the same port for `bus run` and `bus health`."
        )
    host = PROBE_ADDRESSES.get(settings.health_host, settings.health_host)
    path, state = (LIVE, "live") if live else (READY, "ready")
    try:
        is_healthy, text = asyncio.run(
            read_probe((host, settings.health_port), path, timeout=timeout)
        )
    except BusError as error:
        is_healthy, text = False, f"not {state}: {error}"
    typer.echo(one_line(text))
    raise typer.Exit(0 if is_healthy else UNHEALTHY)
