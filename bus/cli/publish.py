"""`bus publish`: tell everybody who cares, in the name of the service whose event it is."""

import asyncio
from typing import Annotated

import typer

from bus.cli.loading import contract_named
from bus.cli.options import Contracts, File, Payload, completed_types
from bus.cli.output import print_json, say, suppress_library_logs
from bus.cli.payload_input import message_from
from bus.contracts.contract import Contract, Event
from bus.errors import ContractError
from bus.messaging.context import correlated
from bus.messaging.envelope import new_id
from bus.runtime.bus import Bus

__all__ = ["command"]


def command(
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="Such as transcription.completed.v1.",
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
            help="The service to speak for: the event's owner, and no other.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="To wait for the broker's confirm; without it BUS_PUBLISH_TIMEOUT.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the correlation id on one line, for programs.")
    ] = False,
) -> None:
    """Publish an event; returns when the broker has confirmed it.

    Only its owner publishes an event, so say with --as that you speak for that service.
    """
    contract = contract_named(type_, contracts or [], kind="event")
    owned(contract, as_service)
    event = message_from(contract, payload or [], file)
    with suppress_library_logs(), correlated(new_id()) as correlation_id:
        asyncio.run(tell(contract.service, event, timeout))  # type: ignore[arg-type]  # its contract is an event's
    if as_json:
        print_json({"type": contract.type, "correlation_id": correlation_id}, compact=True)
        return
    say(
        f"published {contract.type}, correlation id {correlation_id}: the broker has it; whoever subscribes will get it"
    )


def owned(contract: Contract, service: str | None) -> None:
    """`ContractError` for whoever does not say that they speak for the owner."""
    if service is None:
        raise ContractError(
            f"{contract.type} belongs to {contract.service}, which alone publishes it: --as {contract.service} speaks for it"
        )
    if service != contract.service:
        raise ContractError(
            f"{contract.type} belongs to {contract.service}; {service} cannot publish it"
        )


async def tell(service: str, event: Event, timeout: float | None) -> None:
    """Connect, publish, and go."""
    async with Bus(service) as bus:
        await bus.publish(event, timeout=timeout)
