"""`bus submit`: submit a job, show its progress, and print its result."""

import asyncio
import json
from typing import Annotated, Any

import typer

from bus.cli.errors import add_class
from bus.cli.job_silence import JobSilence
from bus.cli.loading import contract_named
from bus.cli.options import (
    AsJson,
    Contracts,
    File,
    Payload,
    completed_types,
    finite,
)
from bus.cli.output import print_json, say, suppress_library_logs
from bus.cli.payload_input import message_from
from bus.cli.sender import AsService, select_sender
from bus.contracts.contract import Job, Message, encode
from bus.errors import DeadlineExceeded, Unavailable
from bus.messaging.context import JobHandle, correlated, correlation
from bus.messaging.envelope import Progress, new_id
from bus.messaging.labels import one_line, short_id
from bus.runtime.bus import Bus

__all__ = ["command"]

POLL_INTERVAL_SECONDS = 0.5
"""Seconds between two checks of the connection."""
MAX_DISCONNECTED_SECONDS = 60.0
"""Seconds without a connection after which the command ends with an error.

A worker sends a result again for 30 s. After a longer time the result may never arrive.
"""


def command(
    type_: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="The job's type, for example transcription.transcribe.v1. "
            "The only version may be left out.",
            autocompletion=completed_types("job"),
        ),
    ],
    payload: Payload = None,
    *,
    file: File = None,
    contracts: Contracts = None,
    as_service: AsService = None,
    no_wait: Annotated[
        bool,
        typer.Option(
            "--no-wait", help="Print the job's id when the broker has confirmed the job, and exit."
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            callback=finite,
            metavar="SECONDS",
            help="Time to wait for the result (default: BUS_MESSAGE_TTL). With --no-wait, time to "
            "wait for the publisher confirm (default: BUS_PUBLISH_TIMEOUT).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job, show its progress, and print its result as JSON.

    When the broker has confirmed the job, the command prints the job's id and its correlation id on
    standard error. Each progress update is a line on standard error, too. If no update arrives for
    10 s, a line names the commands that find the job. If this command ends before the job, for
    example by Ctrl-C, the job continues, but no other command can print the job's result.
    """
    contract = contract_named(type_, contracts or [], kind="job")
    job: Any = message_from(contract, payload or [], file)
    with suppress_library_logs(), correlated(new_id()) as correlation_id:
        sender = select_sender(as_service)
        if no_wait:
            job_id = asyncio.run(submit(sender, job, timeout))
            print_json({"id": job_id, "correlation_id": correlation_id}, compact=as_json)
            if not as_json:
                say_submitted(contract.type, job_id)
            return
        result = asyncio.run(follow(sender, job, timeout))
    print_json(json.loads(encode(result, contract.reply)), compact=as_json)


def say_submitted(type_: str, job_id: str) -> None:
    """Print the ids of a job that the broker has confirmed, and how to follow the job."""
    correlation_id = correlation.get() or ""
    say(
        f"submitted {type_} as {job_id} with correlation id {correlation_id}; "
        "the broker has confirmed it"
    )
    say(
        f"`bus trace {short_id(correlation_id)}` shows what became of it; the logs of the services "
        "have the correlation id, too"
    )


async def submit(service: str, job: Job[Any], timeout: float | None) -> str:
    """Open a connection, submit the job, and return the job's id."""
    async with Bus(service) as bus:
        with add_class(correlation.get()):
            return (await bus.submit(job, timeout=timeout)).id


async def follow(service: str, job: Job[Message | None], timeout: float | None) -> Message | None:
    """Open a connection, submit the job, print its progress updates, and return its result.

    Raises:
        DeadlineExceeded: The job has not ended within `timeout` seconds.
        Unavailable: The broker has not answered for `MAX_DISCONNECTED_SECONDS`.
    """
    async with Bus(service) as bus:
        with add_class(correlation.get()):
            handle = await bus.submit(job)
            say_submitted(handle.type, handle.id)
            silence = JobSilence(handle.type, correlation.get() or "")
            updates = asyncio.ensure_future(print_updates(handle, silence))
            connection = asyncio.ensure_future(report_connection(bus))
            notes = asyncio.ensure_future(silence.report(bus))
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.wait((updates, connection), return_when=asyncio.FIRST_COMPLETED)
                    if not updates.done():
                        connection.result()
                    return await updates
            except TimeoutError:
                raise DeadlineExceeded(
                    f"{handle.type} (job {handle.id}): the job has not ended within {timeout:g} s, "
                    "and continues"
                ) from None
            except asyncio.CancelledError:
                say("the job continues at the service")
                raise
            finally:
                for task in (updates, connection, notes):
                    task.cancel()
                await asyncio.gather(updates, connection, notes, return_exceptions=True)


async def report_connection(bus: Bus) -> None:
    """Print a line when the connection is lost, and when it is open again. Never return.

    Raises:
        Unavailable: The broker has not answered for `MAX_DISCONNECTED_SECONDS`.
    """
    loop = asyncio.get_running_loop()
    lost_at: float | None = None
    while True:
        if bus.ready:
            if lost_at is not None:
                say("connected to the broker again")
            lost_at = None
        elif lost_at is None:
            lost_at = loop.time()
            say("the connection to the broker was lost; the job continues, connecting again")
        elif loop.time() - lost_at > MAX_DISCONNECTED_SECONDS:
            raise Unavailable(
                f"the broker has not answered for {MAX_DISCONNECTED_SECONDS:.0f} s. "
                "The job continues when the broker runs again, but its result is not shown."
            )
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


async def print_updates(handle: JobHandle[Message | None], silence: JobSilence) -> Message | None:
    """Print each progress update when it arrives, and return the job's result."""
    async for update in handle.updates():
        silence.end()
        say(format_update(update))
    return await handle.result()


def format_update(update: Progress) -> str:
    """Return the line that shows a progress update."""
    if update.error is not None:
        code, note = one_line(update.error), one_line(update.note)
        return f"an attempt failed ({code}) and will be retried: {note}"
    return f"{update.progress:>4.0%} {one_line(update.note)}".rstrip()
