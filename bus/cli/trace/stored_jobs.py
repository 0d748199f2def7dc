"""The jobs of a trace that are rows in a store."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from bus.cli.jobs.opening import opened_store
from bus.cli.jobs.table import STATE_STYLES
from bus.cli.quantities import format_duration
from bus.cli.trace.states import cut
from bus.errors import BusError
from bus.messaging.jobs.records import JobFilter, JobRecord
from bus.messaging.labels import one_line, short_id
from bus.messaging.store_address import MEMORY
from bus.settings import Settings

__all__ = ["StoredJobs", "job_line", "read_stored_jobs"]

MAX_JOBS = 200
MIN_LENGTH = 4
"""Minimum number of characters of an abbreviated id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJobs:
    """The jobs of one correlation id in the store."""

    jobs: Sequence[JobRecord] | None = None
    """None if no store is set, or if it could not be read."""
    notes: tuple[str, ...] = ()


async def read_stored_jobs(
    settings: Settings, text: str, correlation_id: str | None, *, service: str | None = None
) -> StoredJobs:
    """Return the jobs of a trace in the store of BUS_STORE. An error becomes a note.

    Args:
        settings: Settings of the operator.
        text: Correlation id or id of a job, or the begin of the id.
        correlation_id: Correlation id of the trace, or None if no other source knows the id.
        service: Service that owns the store. None: any service.
    """
    if settings.store.get_secret_value() == MEMORY:
        return StoredJobs()
    try:
        async with opened_store(settings, service) as store:
            chosen = correlation_id or text
            jobs = await store.jobs.list(JobFilter(correlation_id=chosen), limit=MAX_JOBS)
            if not jobs and len(text) >= MIN_LENGTH:
                whole = JobFilter(ids=(text,), has_whole_ids=True)
                named = await store.jobs.list(whole, limit=2)
                named = named or await store.jobs.list(JobFilter(ids=(text,)), limit=2)
                if len(named) == 1:
                    only = JobFilter(correlation_id=named[0].correlation_id)
                    jobs = await store.jobs.list(only, limit=MAX_JOBS)
    except BusError as error:
        return StoredJobs(notes=(f"the store was not read: {error}",))
    return StoredJobs(jobs=sorted(jobs, key=lambda job: job.submitted_at))


def job_line(job: JobRecord) -> Text:
    """Return the line about a job in the store, without payload, note and text of an error."""
    subject = f"in the store: {cut(job.type)} {short_id(job.key.id)} from {cut(job.key.submitter)}"
    line = Text(f"{subject}: ")
    line.append(one_line(_headline(job)), style=STATE_STYLES[job.state])
    return line


def _headline(job: JobRecord) -> str:
    now = time.time()
    facts: list[str] = [job.state]
    if job.state == "queued":
        facts.append(f"due for {format_duration(max(0.0, now - job.run_at))}")
    elif job.state == "running":
        facts.append(f"attempt {job.attempt} in {job.worker or 'an unknown worker'}")
        if job.started_at is not None:
            facts.append(f"for {format_duration(max(0.0, now - job.started_at))}")
    elif job.state == "retrying":
        facts.append(f"attempt {job.attempt + 1} in {format_duration(max(0.0, job.run_at - now))}")
    if job.failure is not None:
        place = f" at {job.failure.location}" if job.failure.location else ""
        facts.append(f"last error {job.failure.code}{place}")
    if job.life > 1:
        facts.append(f"life {job.life}")
    if job.cancel is not None and not job.has_ended:
        facts.append("to be cancelled")
    return ", ".join(facts)
