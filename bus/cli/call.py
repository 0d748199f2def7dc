"""`bus call`: send a request to a service, and print the reply."""

import asyncio
import json
from typing import Annotated

import typer

from bus.cli.errors import add_class
from bus.cli.loading import contract_named
from bus.cli.options import (
    AsJson,
    Contracts,
    File,
    Payload,
    completed_types,
    finite,
)
from bus.cli.output import print_json, suppress_library_logs
from bus.cli.payload_input import message_from
from bus.cli.sender import AsService, select_sender
from bus.contracts.contract import Message, Request, encode
from bus.messaging.context import correlated
from bus.messaging.envelope import new_id
from bus.runtime.bus import Bus

__all__ = ["command"]


def command(
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="The request's type, for example transcription.get.v1. "
            "The only version may be left out.",
            autocompletion=completed_types("request"),
        ),
    ],
    payload: Payload = None,
    *,
    file: File = None,
    contracts: Contracts = None,
    as_service: AsService = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            callback=finite,
            metavar="SECONDS",
            help="Time to wait for the reply. Default: the timeout of "
            "the service, or BUS_REQUEST_TIMEOUT.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a request, and print the reply as JSON.

    The payload is checked against the contract before the request is sent. If the service replies
    with an error, the command prints the error's class and text, and ends with the exit code of the
    class. The error also has the correlation id, by which the logs of the services can be searched.
    """
    contract = contract_named(type_, contracts or [], kind="request")
    request = message_from(contract, payload or [], file)
    with suppress_library_logs():
        sender = select_sender(as_service)
        # `contract_named` has checked that this is the contract of a request.
        reply = asyncio.run(send_request(sender, request, timeout))  # type: ignore[arg-type]
    print_json(json.loads(encode(reply, contract.reply)), compact=as_json)


async def send_request(
    service: str, request: Request[Message | None], timeout: float | None
) -> Message | None:
    """Open a connection, send the request, and return the reply."""
    async with Bus(service) as bus:
        with correlated(new_id()) as correlation_id, add_class(correlation_id):
            return await bus.request(request, timeout=timeout)
