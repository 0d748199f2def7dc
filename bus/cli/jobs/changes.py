"""Commands of `bus jobs` that change jobs: cancel and retry."""

import time
from collections import Counter
from typing import Annotated

import typer

from bus.cli.audit import authorize, who
from bus.cli.jobs.bulk import Plan, change_jobs, limited_to, require_jobs
from bus.cli.jobs.options import (
    Codes,
    Correlation,
    Ids,
    NewerThan,
    OlderThan,
    Queues,
    States,
    StoreOf,
    Submitter,
    Types,
    build_filter,
)
from bus.cli.options import AsJson
from bus.cli.order_options import Why
from bus.cli.output import say
from bus.errors import FailedPrecondition
from bus.messaging.jobs.records import CancelRequest, JobKey
from bus.messaging.jobs.states import ACTIVE_STATES
from bus.messaging.plurals import count_noun
from bus.messaging.ports.store import Store
from bus.security.grants import JOBS_CANCEL, JOBS_RETRY
from bus.settings import load_settings

__all__ = ["cancel_", "retry_"]

MAX_SELECTED = 10_000
"""Default of the maximum number of jobs that one command changes."""
MAX_NAME = 255

Everything = Annotated[
    bool, typer.Option("--all", help="Required if no id and no filter is given.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the selected jobs, and change none.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="Change at most N jobs.")]


def cancel_(
    ids: Ids = None,
    *,
    reason: Why,
    state: States = None,
    type_: Types = None,
    queue: Queues = None,
    code: Codes = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    correlation_id: Correlation = None,
    submitter: Submitter = None,
    service: StoreOf = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    limit: Limit = MAX_SELECTED,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs that have not ended.

    A job that waits is cancelled at once. The handler of a running job receives the request, and
    its task is cancelled after BUS_CANCEL_GRACE. If the handler succeeds before that, the job has
    succeeded.

    With filters, the command shows the number of selected jobs and asks for confirmation. It
    changes exactly these jobs, and no jobs that arrive later. The store keeps the operator and the
    reason.

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `jobs.cancel`.
    """
    selection = build_filter(
        ids=ids,
        states=state,
        types=type_,
        queues=queue,
        codes=code,
        older_than=older_than,
        newer_than=newer_than,
        correlation_id=correlation_id,
        submitter=submitter,
    )
    require_jobs(selection, everything or bool(state))
    operator = authorize(load_settings(), JOBS_CANCEL, "cancel jobs", "job cancellation denied")
    by = operator.get("operator") or who()[:MAX_NAME]

    async def cancel(store: Store, key: JobKey) -> str:
        request = CancelRequest(by=by, reason=reason, at=time.time())
        job = await store.jobs.cancel(key, request)
        if job is None or (job.has_ended and job.state != "cancelled"):
            return "ended"
        return "cancelled" if job.has_ended else "requested"

    plan = Plan(
        verb="cancel",
        selection=limited_to(selection, ACTIVE_STATES),
        service=service,
        limit=limit,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    outcomes = change_jobs(plan, cancel, {"reason": reason, **operator})
    if not as_json and not dry_run:
        report_cancelled(outcomes)


def retry_(
    ids: Ids = None,
    *,
    reason: Why,
    type_: Types = None,
    queue: Queues = None,
    code: Codes = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    correlation_id: Correlation = None,
    submitter: Submitter = None,
    service: StoreOf = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    limit: Limit = MAX_SELECTED,
    as_json: AsJson = False,
) -> None:
    """Begin the next life of failed jobs. They start again at attempt 1.

    With filters, the command shows the number of selected jobs and asks for confirmation. It
    changes exactly these jobs, and no jobs that fail later. The store keeps the operator and the
    reason with each life. A job cannot be retried after its retention has removed the payload.

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `jobs.retry`.
    """
    selection = build_filter(
        ids=ids,
        types=type_,
        queues=queue,
        codes=code,
        older_than=older_than,
        newer_than=newer_than,
        correlation_id=correlation_id,
        submitter=submitter,
    )
    require_jobs(selection, everything)
    operator = authorize(load_settings(), JOBS_RETRY, "retry jobs", "job retry denied")
    by = operator.get("operator") or who()[:MAX_NAME]

    async def retry(store: Store, key: JobKey) -> str:
        try:
            job = await store.jobs.retry(key, by=by, reason=reason)
        except FailedPrecondition:
            return "without payload"
        return "not failed" if job is None or job.state == "failed" else "retried"

    plan = Plan(
        verb="retry",
        selection=limited_to(selection, frozenset({"failed"})),
        service=service,
        limit=limit,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    outcomes = change_jobs(plan, retry, {"reason": reason, **operator})
    if not as_json and not dry_run:
        report_retried(outcomes)


def report_cancelled(outcomes: Counter[str]) -> None:
    """Print how many jobs were cancelled, and how many are asked to end."""
    if outcomes["cancelled"]:
        say(f"cancelled {count_noun(outcomes['cancelled'], 'job')}")
    if outcomes["requested"]:
        say(
            f"requested the cancellation of {count_noun(outcomes['requested'], 'running job')}; "
            "`bus jobs watch` shows the end"
        )
    if outcomes["ended"]:
        say(f"{count_noun(outcomes['ended'], 'job')} had ended before")


def report_retried(outcomes: Counter[str]) -> None:
    """Print how many jobs have a new life.

    Raises:
        FailedPrecondition: Retention has removed the payload of some jobs.
    """
    if outcomes["retried"]:
        say(f"began the next life of {count_noun(outcomes['retried'], 'job')}")
    if outcomes["not failed"]:
        say(f"{count_noun(outcomes['not failed'], 'job')} had another state at the change")
    if outcomes["without payload"]:
        raise FailedPrecondition(
            f"{count_noun(outcomes['without payload'], 'job')} cannot be retried, because the "
            "retention of the payload is over. Submit the job again, and raise BUS_RETAIN_FAILED "
            "to keep payloads longer."
        )
