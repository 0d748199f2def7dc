"""`bus contracts`: show the contracts of requests, events and jobs."""

from importlib import import_module
from typing import Annotated

import typer

from bus.cli.contract_output import show_all, show_one
from bus.cli.contract_schemas import (
    answer_schemas,
    checked_sample,
    path_of,
    require_reply_schema,
    to_json,
)
from bus.cli.loading import contract_named, known_contracts
from bus.cli.options import AsJson, Contracts, Window, completed_types
from bus.cli.output import print_json, table_console
from bus.cli.sender import AsAsker
from bus.contracts.schema import sample_of, schema_of
from bus.errors import FailedPrecondition

__all__ = ["command"]

command = typer.Typer(help="List the known contracts, or show one.", invoke_without_command=True)


@command.callback()
def list_contracts(
    context: typer.Context, *, contracts: Contracts = None, as_json: AsJson = False
) -> None:
    """List the known contracts, or show one.

    Contracts are in Python modules. Name the modules by --contracts or BUS_CONTRACTS. The default
    is the package 'contracts' in this folder.
    """
    if context.invoked_subcommand is not None:
        context.obj = contracts
        return
    known = known_contracts(contracts or [])
    if as_json:
        print_json([to_json(contract) for contract in known.contracts], compact=True)
    else:
        show_all(known, table_console())


@command.command()
def show(
    context: typer.Context,
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="The contract's type, such as transcription.get.v1. "
            "The only version may be left out.",
            autocompletion=completed_types(),
        ),
    ],
    *,
    contracts: Contracts = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Print only a sample payload, to fill in.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print only the payload's JSON schema.")
    ] = False,
    reply_schema: Annotated[
        bool,
        typer.Option(
            "--reply-schema", help="Print only the JSON schema of the reply or the job's result."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one contract: its fields, a sample payload, the command that sends it, and its reply.

    A schema describes the JSON that the receiver accepts. With --json the key "schema" is the
    payload's, and "reply_schema" is that of the reply or result. "progress_schema" is for the
    progress of a job, and "error_schema" for the error that replaces a reply or result. A key is
    null if the contract has no such message, or if JSON schema cannot describe the reply.
    """
    contract = contract_named(type_, contracts or context.obj or [])
    payload_schema = schema_of(contract.model)
    if payload_schema is None:
        raise FailedPrecondition(
            f"{contract.type} has a field that JSON schema cannot describe. "
            f"Read its class {path_of(contract)}."
        )
    if reply_schema:
        print_json(require_reply_schema(contract), compact=as_json)
    elif schema:
        print_json(payload_schema, compact=as_json)
    elif sample:
        print_json(checked_sample(contract, payload_schema), compact=as_json)
    elif as_json:
        print_json(
            {
                **to_json(contract),
                "sample": sample_of(payload_schema),
                "schema": payload_schema,
                **answer_schemas(contract),
            },
            compact=True,
        )
    else:
        show_one(contract, payload_schema, table_console())


@command.command()
def usage(
    context: typer.Context,
    type_: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE",
            show_default=False,
            help="Show only this type, such as transcription.get.v1, or all versions of the name "
            "transcription.get. Default: all contracts.",
            autocompletion=completed_types(),
        ),
    ] = None,
    *,
    contracts: Contracts = None,
    window: Window = 1.0,
    as_json: AsJson = False,
    as_service: AsAsker = None,
) -> None:
    """Show which services send and serve each version of a contract, and when they last did.

    The command asks all live instances over the broker. It needs the right `control.read`. "sent"
    is the number of messages that live instances of the service have sent. "handled" is the number
    of attempts with which live instances of the receiver have handled them. Each instance counts
    from its start, so a service that has stopped is only in the counts of its receivers.

    With known contracts, the command also lists those without a sender.
    """
    # Only this command connects to the broker.
    import_module("bus.cli.contract_usage").run_usage(
        type_,
        contracts or context.obj or [],
        window=window,
        as_json=as_json,
        as_service=as_service,
    )
