"""Selection of the service that sends a message, or asks services, from the command line."""

import asyncio
from typing import Annotated

import typer

from bus.contracts.contract import Contract
from bus.errors import ConfigurationError, ContractError
from bus.runtime.key_owner import find_key_owners
from bus.settings import load_settings

__all__ = ["AsAsker", "AsService", "select_publisher", "select_sender"]

CLI = "cli"
"""Name of the service that sends requests and jobs if no key names a service."""

AsService = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="SERVICE",
        show_default=False,
        help="The service that sends the message. Default: the owner of BUS_KEY, or 'cli' without "
        "keys.",
    ),
]

AsAsker = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="SERVICE",
        show_default=False,
        help="Ask with the key of this service in BUS_KEY. Default: ask with BUS_OPERATOR_KEY, or "
        "without it with BUS_KEY.",
    ),
]


def select_sender(chosen: str | None) -> str:
    """Return the service that sends a request or job.

    Args:
        chosen: Value of `--as`. If it is None, the owner of `BUS_KEY` sends the message.

    Raises:
        ConfigurationError: `--as` is required, because `BUS_KEY` names several services. Or the
            keys cannot be read.
    """
    if chosen is not None:
        return chosen
    owners = asyncio.run(find_key_owners(load_settings()))
    if not owners or CLI in owners:
        return CLI
    if len(owners) > 1:
        raise ConfigurationError(
            f"BUS_KEY names a directory with the keys of several services: {', '.join(owners)}. "
            "Choose one that may send the message, with --as SERVICE."
        )
    return owners[0]


def select_publisher(contract: Contract, chosen: str | None) -> str:
    """Return the service that publishes an event, which is the owner of its contract.

    Args:
        contract: Contract of the event.
        chosen: Value of `--as`. If it is None, `BUS_KEY` must name only the owner of the contract.

    Raises:
        ContractError: Another service than the owner is chosen, or no service.
        ConfigurationError: The keys cannot be read.
    """
    owner = contract.service
    owners = asyncio.run(find_key_owners(load_settings())) if chosen is None else [chosen]
    if owners == [owner]:
        return owner
    if owners and owner not in owners:
        sender, remedy = (
            (chosen, f"Publish as its owner with --as {owner}.")
            if chosen is not None
            else (f"{' or '.join(owners)} (BUS_KEY)", f"Set BUS_KEY to the key of {owner}.")
        )
        raise ContractError(
            f"{contract.type} belongs to {owner}, so {sender} cannot publish it. {remedy}"
        )
    raise ContractError(
        f"{contract.type} belongs to {owner}, and no other service may publish it. "
        f"Publish as its owner with --as {owner}."
    )
