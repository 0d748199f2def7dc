"""`bus health`: how a worker of this machine is, as an exit code; for the health check of a container without curl."""

import asyncio
from typing import Annotated

import typer

from bus.errors import BusError, ConfigurationError
from bus.operations.health import LIVE, READY, probe
from bus.settings import load_settings

__all__ = ["command"]

UNHEALTHY = 1  # Docker's word for it; 2 is reserved there
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here: where to ask what is open on all addresses


def command(
    live: Annotated[
        bool, typer.Option("--live", help="Ask only whether its event loop turns.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=60, metavar="SECONDS", help="To wait for the answer.")
    ] = 3,
) -> None:
    """Ask a worker of this machine whether it is ready: exit code 0, else 1.

    Ready: every consumer of each of its processes is registered at the broker now. It is asked at BUS_HEALTH_PORT, so
    give this command the environment of its `bus run`.
    """
    settings = load_settings()
    if settings.health_port is None:
        raise ConfigurationError(
            "BUS_HEALTH_PORT is not set, so `bus run` answers no health probes; set the same port for both"
        )
    at = EVERYWHERE.get(settings.health_host, settings.health_host), settings.health_port
    path, word = (LIVE, "live") if live else (READY, "ready")
    try:
        why = asyncio.run(probe(at, path, timeout=timeout))
    except BusError as error:
        why = f"not {word}: {error}"
    typer.echo(why or word)
    raise typer.Exit(UNHEALTHY if why else 0)
