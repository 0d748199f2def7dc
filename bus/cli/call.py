"""`bus call`: ask a service, and print its answer."""

import asyncio
import json
from typing import Annotated

import typer

from bus.cli.loading import contract_named
from bus.cli.options import CLI, AsJson, AsService, Contracts, File, Payload, completed_types
from bus.cli.output import print_json, suppress_library_logs
from bus.cli.payload_input import message_from
from bus.contracts.contract import Message, Request, encode
from bus.runtime.bus import Bus

__all__ = ["command"]


def command(
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="Such as transcription.get.v1.",
            autocompletion=completed_types("request"),
        ),
    ],
    payload: Payload = None,
    *,
    file: File = None,
    contracts: Contracts = None,
    as_service: AsService = CLI,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="To wait for the answer; without it BUS_REQUEST_TIMEOUT.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a request, and print the answer as JSON.

    The payload is checked against the contract before anything is sent. What the service refuses is an error here, with
    the exit code of its class.
    """
    contract = contract_named(type_, contracts or [], kind="request")
    request = message_from(contract, payload or [], file)
    with suppress_library_logs():
        answer = asyncio.run(ask(as_service, request, timeout))  # type: ignore[arg-type]  # its contract is a request's
    print_json(json.loads(encode(answer, contract.reply)), compact=as_json)


async def ask(
    service: str, request: Request[Message | None], timeout: float | None
) -> Message | None:
    """Connect, ask, and go."""
    async with Bus(service) as bus:
        return await bus.request(request, timeout=timeout)
