"""Commands of `bus jobs` that only read jobs. `bus.cli.jobs.changes` has the other ones."""

import time
from collections.abc import Mapping
from typing import Annotated

import typer

from bus.cli.audit import audited, authorize
from bus.cli.jobs.changes import cancel_, retry_
from bus.cli.jobs.opening import run_on_store
from bus.cli.jobs.options import (
    Codes,
    Correlation,
    NewerThan,
    OlderThan,
    Queues,
    States,
    StoreOf,
    Submitter,
    Types,
    build_filter,
)
from bus.cli.jobs.pauses import pauses_of
from bus.cli.jobs.payloads import payload_lines, payloads_to_json
from bus.cli.jobs.selection import find_job, select_jobs
from bus.cli.jobs.table import details, job_to_json, jobs_table, pause_text
from bus.cli.jobs.watching import watch_
from bus.cli.options import AsJson
from bus.cli.output import print_json, say, table_console
from bus.messaging.jobs.pauses import Pause
from bus.messaging.jobs.records import JobFilter, JobRecord
from bus.messaging.plurals import count_noun
from bus.messaging.ports.store import Store
from bus.security.grants import JOBS_READ
from bus.settings import load_settings

__all__ = ["command"]

SEE_DEAD_LETTERS = (
    "A message that no worker could read or trust is not a job, but a dead letter: `bus dead list`"
)
command = typer.Typer(
    no_args_is_help=True, help="List, show, watch, cancel and retry the durable jobs in a store."
)


@command.command("list")
def list_(
    *,
    state: States = None,
    type_: Types = None,
    queue: Queues = None,
    code: Codes = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    correlation_id: Correlation = None,
    submitter: Submitter = None,
    service: StoreOf = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Show at most N jobs, newest first.")
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """List the jobs in the store of BUS_STORE, without their payloads and results.

    The command reads the store, so it needs neither the broker nor a running service. A job of a
    service without a store is a message in its work queue (`bus queues`). If it fails, it is a dead
    letter (`bus dead list`).

    "done" is the progress that the handler reported last. "code" and "place" are those of the last
    error. "losses" counts attempts that ended with their worker.
    """
    selection = build_filter(
        states=state,
        types=type_,
        queues=queue,
        codes=code,
        older_than=older_than,
        newer_than=newer_than,
        correlation_id=correlation_id,
        submitter=submitter,
    )

    async def read(store: Store) -> tuple[list[JobRecord], Mapping[str, Pause]]:
        return await select_jobs(store, selection, limit + 1), await pauses_of(store)

    found, pauses = run_on_store(service, read)
    jobs, has_more = found[:limit], len(found) > limit
    if as_json:
        print_json({"jobs": [job_to_json(job) for job in jobs], "more": has_more}, compact=True)
        return
    if jobs:
        console = table_console()
        console.print(jobs_table(jobs, console, now=time.time()))
    for queue_name in sorted({job.queue for job in jobs if not job.has_ended} & pauses.keys()):
        say(f"{queue_name} is paused by {pause_text(pauses[queue_name])}")
    say(_summary(len(jobs), selection, has_more=has_more))


def _summary(count: int, selection: JobFilter, *, has_more: bool) -> str:
    text = count_noun(count, "job") if count else "no jobs"
    if has_more:
        text = f"{text}, the newest ones; use --limit to show more"
    asks_for_failed = not count or "failed" in selection.states
    return f"{text}. {SEE_DEAD_LETTERS}" if asks_for_failed else text


@command.command()
def show(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The id, or its first 4 or more characters.")
    ],
    *,
    submitter: Submitter = None,
    service: StoreOf = None,
    reveal: Annotated[
        bool,
        typer.Option("--reveal", help="Also show payload and result. The audit log records this."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job: its life, attempts, times, progress, last error, and orders of operators.

    Payload and result are shown only with --reveal, because they can hold personal data. With
    BUS_AUTH=on, --reveal requires BUS_OPERATOR_KEY and the right jobs.read. With BUS_AUTH=dev, it
    requires only BUS_KEY.
    """
    operator: dict[str, str] = {}
    settings = load_settings()
    if reveal:
        action = "see payloads and results of jobs"
        operator = authorize(settings, JOBS_READ, action, "job access denied")

    async def read(store: Store) -> tuple[JobRecord, Pause | None]:
        found = await find_job(store, id_, submitter)
        return found, (await pauses_of(store)).get(found.queue)

    job, pause = run_on_store(service, read)
    if reveal:
        audited(
            "job revealed",
            message_id=job.key.id,
            type=job.type,
            submitter=job.key.submitter,
            **operator,
        )
    if as_json:
        value = job_to_json(job, is_whole=True)
        print_json({**value, **(payloads_to_json(job, settings) if reveal else {})}, compact=True)
        return
    console = table_console()
    console.print(details(job, now=time.time(), pause=pause))
    for line in payload_lines(job, settings, reveal=reveal):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


command.command("watch")(watch_)
command.command("cancel")(cancel_)
command.command("retry")(retry_)
