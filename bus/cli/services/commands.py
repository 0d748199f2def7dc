"""The command `bus services`."""

import asyncio
import time
from typing import Annotated

import typer

from bus.cli.options import Window, finite
from bus.cli.output import print_json, suppress_library_logs, table_console
from bus.cli.sender import AsAsker
from bus.cli.services.as_json import services_to_json
from bus.cli.services.detail import service_detail
from bus.cli.services.list_table import services_table
from bus.cli.services.questions import Answered, ask_services
from bus.cli.services.watch import watch_services
from bus.contracts.names import PART, check_part
from bus.errors import ContractError
from bus.messaging.control import Target
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings

__all__ = ["command"]


def command(
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE",
            show_default=False,
            help="Show the instances and operations of this service. Default: all services.",
        ),
    ] = None,
    *,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show changes until Ctrl-C. In a pipe each change is a block of lines.",
        ),
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=3600,
            callback=finite,
            metavar="SECONDS",
            help="Time between two questions of --watch. Starts and stops are shown at once.",
        ),
    ] = 2.0,
    window: Window = 1.0,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="With SERVICE, show also each operation of each instance, and the contracts.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON for programs. With --watch, print one line per change."
        ),
    ] = False,
    as_service: AsAsker = None,
) -> None:
    """Show the live instances of services, their operations, latencies and errors.

    The command asks all live instances over the broker, and shows the answers that arrive within
    the window. Services with problems come first. It needs the right `control.read`, takes no
    message out of a queue, and changes nothing.

    "handled" and "errors" are the attempts of the last 1 to 2 minutes, and those that failed. "p50"
    and "p99" are the durations below which 50 and 99 percent of them are. A service that serves
    requests has the durations of its requests. "rate/s" is the number of attempts per second in the
    last interval of --watch.

    With SERVICE, "since start" is the number of attempts since the start of each instance. "oldest"
    is the time for which the oldest running message has run.
    """
    if service is not None:
        check_service(service)
    settings = load_settings()
    with suppress_library_logs():
        if watch:
            step = max(interval, window)
            asyncio.run(
                watch_services(
                    settings,
                    Target(service),
                    interval=step,
                    window=window,
                    as_json=as_json,
                    as_service=as_service,
                )
            )
            return
        answered = asyncio.run(ask(settings, service, window, as_service))
    if as_json:
        print_json(
            services_to_json(answered.services, answered.infos, at=time.time()), compact=True
        )
        return
    console = table_console()
    if service is None:
        console.print(services_table(answered.services, console))
    else:
        console.print(
            service_detail(answered.services[0], console, answered.infos, verbose=verbose)
        )


def check_service(service: str) -> None:
    """Check the name of a service.

    Raises:
        ContractError: The name is invalid.
    """
    try:
        check_part(service, "service")
    except ContractError as error:
        owner, dot, _ = service.partition(".")
        advice = "."
        if dot and PART.fullmatch(owner):
            advice = f". For a type, name its service: {owner}."
        elif service.replace(".", "", 1).isdigit():
            advice = ". Set seconds with --interval or --window."
        raise ContractError(f"{error}{advice}") from None


async def ask(
    settings: Settings, service: str | None, window: float, as_service: str | None
) -> Answered:
    """Open a connection, and ask all instances or those of one service."""
    async with open_asker(settings, service=as_service) as asker:
        return await ask_services(asker, service, window)
