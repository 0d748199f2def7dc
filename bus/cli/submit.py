"""`bus submit`: hand over work, watch it, and print its result."""

import asyncio
import json
from typing import Annotated, Any

import typer

from bus.cli.loading import contract_named
from bus.cli.options import CLI, AsJson, AsService, Contracts, File, Payload, completed_types
from bus.cli.output import print_json, say, suppress_library_logs
from bus.cli.payload_input import message_from
from bus.contracts.contract import Job, Message, encode
from bus.errors import DeadlineExceeded
from bus.messaging.context import JobHandle, correlated
from bus.messaging.envelope import Progress, new_id
from bus.runtime.bus import Bus

__all__ = ["command"]


def command(
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="Such as transcription.transcribe.v1.",
            autocompletion=completed_types("job"),
        ),
    ],
    payload: Payload = None,
    *,
    file: File = None,
    contracts: Contracts = None,
    as_service: AsService = CLI,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the job's id as soon as the broker has it.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="To wait for the result, or with --no-wait for the broker's confirm; without it BUS_MESSAGE_TTL, or BUS_PUBLISH_TIMEOUT.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job, show its progress, and print its result as JSON.

    Progress goes to standard error, a line each. A job goes on when its submitter leaves, by Ctrl-C too; its result is
    then not to be had here.
    """
    contract = contract_named(type_, contracts or [], kind="job")
    job: Any = message_from(contract, payload or [], file)
    with suppress_library_logs(), correlated(new_id()) as correlation_id:
        if no_wait:
            print_json(
                {
                    "id": asyncio.run(submit(as_service, job, timeout)),
                    "correlation_id": correlation_id,
                },
                compact=as_json,
            )
            return
        result = asyncio.run(follow(as_service, job, timeout))
    print_json(json.loads(encode(result, contract.reply)), compact=as_json)


async def submit(service: str, job: Job[Any], timeout: float | None) -> str:
    """Connect, submit, and go; the job's id."""
    async with Bus(service) as bus:
        return (await bus.submit(job, timeout=timeout)).id


async def follow(service: str, job: Job[Message | None], timeout: float | None) -> Message | None:
    """The result; `DeadlineExceeded` after `timeout` seconds, in which the job has not ended."""
    async with Bus(service) as bus:
        handle = await bus.submit(job)
        say(f"submitted as {handle.id}")
        try:
            async with asyncio.timeout(timeout):
                return await watched(handle)
        except TimeoutError:
            raise DeadlineExceeded(f"the job is not done after {timeout:g} s; it goes on") from None
        except asyncio.CancelledError:
            say("the job goes on")
            raise


async def watched(handle: JobHandle[Message | None]) -> Message | None:
    """The result, with each update said as it comes."""
    async for update in handle.updates():
        say(described(update))
    return await handle.result()


def described(update: Progress) -> str:
    """An update in a line."""
    if update.error is not None:
        return f"an attempt failed ({update.error}), and it will be tried again: {update.note}"
    return f"{update.progress:>4.0%} {update.note}".rstrip()
