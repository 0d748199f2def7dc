"""`bus exporter`: serve the metrics of all live instances for Prometheus."""

import asyncio
import contextlib
import logging
from importlib import import_module
from types import ModuleType
from typing import Annotated

import typer

from bus.cli.broker import signals
from bus.cli.metrics_pages import METRICS
from bus.cli.options import finite
from bus.cli.sender import AsAsker
from bus.messaging.topology.control import COMMANDS
from bus.operations.health import serve_probes
from bus.operations.logging import configure_logging
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["command"]

log = logging.getLogger("bus.exporter")

PORT = 9464
"""The port that OpenTelemetry's exporters for Prometheus use as well."""


def command(
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="Port to listen on.")
    ] = PORT,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on. 0.0.0.0 permits scrapes from other machines.",
        ),
    ] = "127.0.0.1",
    interval: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            callback=finite,
            metavar="SECONDS",
            help="Time in which further scrapes receive the same answers.",
        ),
    ] = 10,
    window: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=5,
            callback=finite,
            metavar="SECONDS",
            help="Time to wait for the answers of the instances.",
        ),
    ] = 1,
    as_service: AsAsker = None,
) -> None:
    """Serve the metrics of all live instances for Prometheus, until Ctrl-C or SIGTERM.

    At a scrape of /metrics the command asks all live instances for their statistics. Each metric
    has the labels service and instance. An instance that does not answer has no metrics. /livez
    and /readyz are health probes.

    The command needs the extra `metrics`, and with BUS_AUTH=on a key with the right control.read.
    """
    library = import_module("bus.integrations.prometheus")
    settings = load_settings()
    configure_logging(settings, overwrite=False)
    asyncio.run(
        serve(
            library,
            settings,
            (host, port),
            interval=interval,
            window=window,
            as_service=as_service,
        )
    )


async def serve(
    library: ModuleType,
    settings: Settings,
    at: tuple[str, int],
    *,
    interval: float,
    window: float,
    as_service: str | None = None,
) -> None:
    """Serve the metrics until a signal arrives.

    Args:
        library: The package `bus.integrations.prometheus`.
        settings: Settings of the connection and of the keys.
        at: Host and port to listen on.
        interval: Seconds in which further scrapes receive the same answers.
        window: Seconds to wait for the answers of the instances.
        as_service: The service that asks. None: the operator, or the owner of `BUS_KEY`.

    Raises:
        BusError: The broker does not answer, or the operator or service may not ask.
        ConfigurationError: The address cannot be opened, or a key or the grants are missing.
    """
    with signals() as stop:
        transport = RabbitMQTransport(settings, name=COMMANDS)
        async with open_asker(settings, service=as_service, transport=transport) as asker:
            exporter = library.Exporter(
                asker, interval=interval, window=window, depth=transport.depth
            )
            await exporter.check()
            page = library.MetricsPage(
                library.exporter_registry(lambda: exporter.shown), exporter.refresh
            )
            reading = asyncio.ensure_future(exporter.read_announcements())
            try:
                async with serve_probes(
                    at,
                    ready=exporter.ready,
                    pages={METRICS: page},
                    remedy="Pass a free port with --port.",
                ):
                    log.info("the metrics of all instances are at http://%s:%d/metrics", *at)
                    await stop.wait()
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
