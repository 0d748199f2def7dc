"""`bus publish`: publish an event in the name of the service that owns it."""

import asyncio
from typing import Annotated

import typer

from bus.cli.errors import add_class
from bus.cli.loading import contract_named
from bus.cli.options import Contracts, File, Payload, completed_types, finite
from bus.cli.output import print_json, say, suppress_library_logs
from bus.cli.payload_input import message_from
from bus.cli.sender import select_publisher
from bus.contracts.contract import Event
from bus.messaging.context import correlated, correlation
from bus.messaging.envelope import new_id
from bus.runtime.bus import Bus

__all__ = ["command"]


def command(
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="The event's type, for example transcription.completed.v1. "
            "The only version may be left out.",
            autocompletion=completed_types("event"),
        ),
    ],
    payload: Payload = None,
    *,
    file: File = None,
    contracts: Contracts = None,
    as_service: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="SERVICE",
            show_default=False,
            help="Publish as this service, which must be the event's owner. Default: the owner of "
            "BUS_KEY.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            callback=finite,
            metavar="SECONDS",
            help="Time to wait for the publisher confirm. Default: BUS_PUBLISH_TIMEOUT.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the correlation id as JSON on one line, for programs."),
    ] = False,
) -> None:
    """Publish an event, and wait until the broker has confirmed it.

    Only the service that owns an event may publish it. So BUS_KEY must be the key of this service.
    Without keys, --as must name the service.
    """
    contract = contract_named(type_, contracts or [], kind="event")
    with suppress_library_logs():
        publisher = select_publisher(contract, as_service)
    event = message_from(contract, payload or [], file)
    with suppress_library_logs(), correlated(new_id()) as correlation_id:
        # `contract_named` has checked that this is the contract of an event.
        asyncio.run(publish_event(publisher, event, timeout))  # type: ignore[arg-type]
    if as_json:
        print_json({"type": contract.type, "correlation_id": correlation_id}, compact=True)
        return
    say(
        f"published {contract.type} with correlation id {correlation_id}; "
        "the broker has confirmed it"
    )


async def publish_event(service: str, event: Event, timeout: float | None) -> None:
    """Open a connection, and publish the event."""
    async with Bus(service) as bus:
        with add_class(correlation.get()):
            await bus.publish(event, timeout=timeout)
