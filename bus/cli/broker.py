"""`bus broker`: a RabbitMQ to try things on."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer
from rich.console import Console

from bus.cli.output import print_json
from bus.errors import Unavailable
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.select import BrokerChoice, broker_for, select_broker

__all__ = ["command", "started"]

POLL_INTERVAL_SECONDS = 0.5  # seconds between two looks at whether the broker still runs


def command(
    *,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print where it is and who may come in on one line, for programs."
        ),
    ] = False,
) -> None:
    """Start a private RabbitMQ with its management UI, until Ctrl-C.

    It takes this machine's RabbitMQ, else a container, and removes its data when it ends.
    Where BUS_URL names a broker, nothing is started.
    """
    console = Console(stderr=as_json)
    choice = select_broker(os.environ)
    if choice.kind == "named":
        if as_json:
            print_json(where(choice, broker_for(choice)), compact=True)
        console.print(
            f"{broker_for(choice).describe()}: nothing is started. Unset BUS_URL to start a private one.",
            soft_wrap=True,
        )
        return
    asyncio.run(serve(choice, console, as_json=as_json))


async def serve(choice: BrokerChoice, console: Console, *, as_json: bool) -> None:
    """Start it, say where it is, and end it when a signal says so."""
    with signals() as stop:
        async with started(choice, console, stop) as broker:
            if broker is None:
                return
            if as_json:
                print_json(where(choice, broker), compact=True)
            else:
                console.print(card(choice, broker), markup=False, highlight=False, soft_wrap=True)
            console.print("Ctrl-C ends it and removes its data.")
            await until(stop, broker)
        console.print("ended, and its data removed")


@contextlib.asynccontextmanager
async def started(
    choice: BrokerChoice, console: Console, stop: asyncio.Event
) -> AsyncIterator[Broker | None]:
    """The chosen broker while it runs, ended afterwards; None where `stop` came first."""
    broker = broker_for(choice)
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


async def until(stop: asyncio.Event, broker: Broker) -> None:
    """Return when `stop` is set; `Unavailable` should the broker end by itself."""
    while not stop.is_set():
        if not broker.running:
            raise Unavailable(f"{broker.describe()} has ended by itself; start it again")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_INTERVAL_SECONDS)


@contextlib.contextmanager
def signals() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def where(choice: BrokerChoice, broker: Broker) -> dict[str, str | None]:
    """Where it is and who may come in, for programs."""
    return {"broker": choice.kind, "url": broker.url, "management_url": broker.management_url}


def card(choice: BrokerChoice, broker: Broker) -> str:
    """Where it is and who may come in."""
    parts = urlsplit(broker.url)
    rows = {
        "RabbitMQ": broker.describe(),
        "because": choice.why,
        "URL": broker.url,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "UI": broker.management_url or "none",
        "use it": f"export BUS_URL={broker.url}{f' BUS_MANAGEMENT_URL={broker.management_url}' if broker.management_url else ''}",
    }
    return "\n".join(f"{name:<10}{value}" for name, value in rows.items())
