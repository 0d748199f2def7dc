"""The statements of the job store that only read."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, or_, select, text, tuple_

from bus.messaging.jobs.records import JobFilter, JobKey, JobRecord
from bus.storage.sqlalchemy.job_changes import IS_WAITING
from bus.storage.sqlalchemy.tables import jobs
from bus.storage.sqlalchemy.texts import to_text

__all__ = ["COUNT", "is_key", "list_jobs"]

PAYLOADS: Final = frozenset({"message", "result", "progress_update"})
SUMMARY: Final = tuple(column for column in jobs.c if column.name not in PAYLOADS)
"""Columns of a list. PostgreSQL stores a large payload apart, and does not read it here."""
_ALL: Final = (
    select(jobs.c.queue, jobs.c.state, func.count().label("number"))
    .group_by(jobs.c.queue, jobs.c.state)
    .subquery("counted")
)
_EARLIEST: Final = (
    select(jobs.c.queue, jobs.c.state, func.min(jobs.c.run_at).label("run_at"))
    .where(text(IS_WAITING))
    .group_by(jobs.c.queue, jobs.c.state)
    .subquery("earliest")
)
# Each of the two parts reads only an index.
COUNT: Final = (
    select(_ALL.c.queue, _ALL.c.state, _ALL.c.number, _EARLIEST.c.run_at)
    .join_from(
        _ALL,
        _EARLIEST,
        (_ALL.c.queue == _EARLIEST.c.queue) & (_ALL.c.state == _EARLIEST.c.state),
        isouter=True,
    )
    .order_by(_ALL.c.queue, _ALL.c.state)
)
_LAST: Final = "\U0010ffff"
"""The last character. A text with a prefix comes before the prefix with this character."""


def is_key(key: JobKey) -> ColumnElement[bool]:
    """Return the condition for a job."""
    return (jobs.c.id == to_text(key.id)) & (jobs.c.submitter == to_text(key.submitter))


def list_jobs(selection: JobFilter, limit: int, after: JobRecord | None) -> Select[Any]:
    """Return the statement for a page of a list."""
    place = tuple_(jobs.c.submitted_at, jobs.c.submitter, jobs.c.id)
    statement = select(*SUMMARY).where(*_conditions(selection)).limit(limit)
    if after is not None:
        statement = statement.where(
            place < (after.submitted_at, to_text(after.key.submitter), to_text(after.key.id))
        )
    return statement.order_by(jobs.c.submitted_at.desc(), jobs.c.submitter.desc(), jobs.c.id.desc())


def _conditions(selection: JobFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        column.in_([to_text(value) for value in values])
        for column, values in (
            (jobs.c.state, selection.states),
            (jobs.c.type, selection.types),
            (jobs.c.queue, selection.queues),
            (jobs.c.failure_code, selection.codes),
        )
        if values
    ]
    if selection.ids and selection.has_whole_ids:
        conditions.append(jobs.c.id.in_([to_text(each) for each in selection.ids]))
    elif selection.ids:
        conditions.append(or_(*(_begins(to_text(each)) for each in selection.ids)))
    if selection.submitter is not None:
        conditions.append(jobs.c.submitter == to_text(selection.submitter))
    if selection.correlation_id is not None:
        conditions.append(jobs.c.correlation_id == to_text(selection.correlation_id))
    if selection.submitted_before is not None:
        conditions.append(jobs.c.submitted_at < selection.submitted_before)
    if selection.submitted_after is not None:
        conditions.append(jobs.c.submitted_at > selection.submitted_after)
    return conditions


def _begins(prefix: str) -> ColumnElement[bool]:
    """Return the condition for an id with a prefix, as a range, which an index finds."""
    return (jobs.c.id >= prefix) & (jobs.c.id < prefix + _LAST)
