"""`bus broker`: a private RabbitMQ for experiments."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import typer
from rich.console import Console

from bus.cli.broker_options import (
    Keep,
    ManagementPort,
    Password,
    PasswordFile,
    Port,
    check_ports,
    select_password,
)
from bus.cli.env_file import describe_removal
from bus.cli.errors import INTERRUPTED, TERMINATED
from bus.cli.output import EscapingConsole, print_json
from bus.errors import Unavailable
from bus.messaging.broker_addresses import require_urls
from bus.messaging.variable_values import environment_value
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.kept_node import KeptNode
from bus.operations.brokers.select import BrokerChoice, broker_for, select_broker

__all__ = ["command", "started"]

POLL_INTERVAL_SECONDS = 0.5
"""Seconds between two checks that the broker still runs."""


def command(
    *,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the broker's URLs as JSON on one line, for programs."),
    ] = False,
    port: Port = None,
    management_port: ManagementPort = None,
    password: Password = None,
    password_file: PasswordFile = None,
    keep: Keep = None,
) -> None:
    """Run a private RabbitMQ with its management UI until Ctrl-C.

    The command starts the RabbitMQ that is installed on this machine. If none is installed, it
    starts a container. Ports and password are random, and at the end the command removes the
    broker's data. If BUS_URL is set, the command starts no broker.

    With --port, --password or --keep, the broker has the same URL after each start, so that a file
    `.env` with BUS_URL stays valid. With one of these options the command starts a broker even if
    BUS_URL is set.
    """
    console = EscapingConsole(stderr=as_json)
    check_ports(port, management_port)
    options = BrokerOptions(
        port=port,
        management_port=management_port,
        password=select_password(password, password_file),
        keep=keep,
    )
    choice = select_broker(os.environ, own=bool(options))
    if choice.kind == "named":
        if as_json:
            print_json(connection_fields(choice, broker_for(choice)), compact=True)
        console.print(
            f"{broker_for(choice).describe()}: nothing is started. "
            f"{describe_removal('BUS_URL')}, or pass --port or --keep, to start a private broker.",
            soft_wrap=True,
        )
        return
    asyncio.run(serve(choice, options, console, as_json=as_json))


async def serve(
    choice: BrokerChoice, options: BrokerOptions, console: Console, *, as_json: bool
) -> None:
    """Start the broker, print its address, and stop it after Ctrl-C or SIGTERM."""
    with signals() as stop:
        async with started(choice, console, stop, options) as broker:
            if broker is None:
                console.print("The start of the broker was interrupted.")
                raise typer.Exit(stop.exit_code)
            if as_json:
                print_json(connection_fields(choice, broker), compact=True)
            else:
                console.print(
                    format_card(choice, broker), markup=False, highlight=False, soft_wrap=True
                )
            warn_of_other_url(broker, console)
            kept = isinstance(broker, KeptNode)
            effect = f"keeps its data in {options.keep}" if kept else "removes its data"
            console.print(f"Ctrl-C stops the broker and {effect}.", markup=False, soft_wrap=True)
            await until(stop, broker)
            if kept:
                console.print("The broker stops, which takes about 6 s.")
        console.print(f"The broker is stopped, {describe_data(broker)}", soft_wrap=True)


def describe_data(broker: Broker) -> str:
    """Return the end of a sentence about a stopped broker: what happened to its data."""
    if not isinstance(broker, KeptNode):
        return "and its data is removed."
    if broker.keeps_data:
        return "and its data is kept."
    return "but its data is lost, because its directory was removed while the broker ran."


def warn_of_other_url(broker: Broker, console: Console) -> None:
    """Warn the user if BUS_URL is not the URL of the broker that was started."""
    url = environment_value(os.environ, "BUS_URL")
    if url is not None and url != broker.url:
        console.print(
            "BUS_URL is set, but it is not the URL of this broker. Commands and workers use "
            f"BUS_URL. {describe_removal('BUS_URL')}, or set it to the URL above.",
            soft_wrap=True,
        )


@contextlib.asynccontextmanager
async def started(
    choice: BrokerChoice,
    console: Console,
    stop: asyncio.Event,
    options: BrokerOptions | None = None,
) -> AsyncIterator[Broker | None]:
    """Run the chosen broker inside the block.

    The block gets the broker, or None if `stop` is set before the broker has started.
    """
    broker = broker_for(choice, options)
    starting, stopping = asyncio.ensure_future(broker.start()), asyncio.ensure_future(stop.wait())
    try:
        with console.status("starting RabbitMQ (about 5 s)"):
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
        yield broker if starting.done() else None
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.wait({starting, stopping})
        await broker.stop()


async def until(stop: asyncio.Event, broker: Broker | None) -> None:
    """Wait until `stop` is set, and check in the meantime that the broker runs, if there is one.

    Raises:
        Unavailable: The broker has stopped unexpectedly.
    """
    while not stop.is_set():
        if broker is not None and not broker.running:
            raise Unavailable(
                f"{broker.describe()} has stopped unexpectedly. Run the command again."
            )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_INTERVAL_SECONDS)


class StopSignal(asyncio.Event):
    """An event that is set when Ctrl-C or SIGTERM arrives."""

    exit_code = INTERRUPTED
    """Exit code of a command whose work the signal has interrupted."""

    def arrive(self, exit_code: int) -> None:
        """Set the event and the exit code."""
        self.exit_code = exit_code
        self.set()


@contextlib.contextmanager
def signals() -> Iterator[StopSignal]:
    """Yield an event that is set when Ctrl-C or SIGTERM arrives."""
    stop, loop = StopSignal(), asyncio.get_running_loop()
    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
        loop.add_signal_handler(number, stop.arrive, code)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def connection_fields(choice: BrokerChoice, broker: Broker) -> dict[str, str | None]:
    """Return the broker's kind and its URLs with credentials, for programs."""
    return {"broker": choice.kind, "url": broker.url, "management_url": broker.management_url}


def format_card(choice: BrokerChoice, broker: Broker) -> str:
    """Return the text that shows the user the broker's addresses and credentials."""
    url = require_urls(broker.url)[0]
    management = f" BUS_MANAGEMENT_URL={broker.management_url}" if broker.management_url else ""
    rows = {
        "RabbitMQ": broker.describe(),
        "reason": choice.why,
        "URL": broker.url,
        "user": url.user or "",
        "password": url.password or "",
        "UI": broker.management_url or "none",
        "connect": f"export BUS_URL={broker.url}{management}",
    }
    return "\n".join(f"{name:<10}{value}" for name, value in rows.items())
