"""The jobs that a command selects in the store."""

from collections.abc import Sequence
from dataclasses import replace

from bus.errors import InvalidArgument, NotFound
from bus.messaging.escaped_text import one_line
from bus.messaging.jobs.records import JobFilter, JobKey, JobRecord
from bus.messaging.ports.store import Store

__all__ = ["complete_ids", "find_job", "select_jobs"]

PAGE = 1000
"""Number of jobs that one query returns."""
MAX_CANDIDATES = 5
"""Maximum number of ids that the error about an ambiguous id shows."""
HINT = (
    "List the jobs with `bus jobs list`. A message that no worker could read or trust is a dead "
    "letter: run `bus dead list`."
)


async def select_jobs(store: Store, selection: JobFilter, limit: int) -> list[JobRecord]:
    """Return at most `limit` jobs of a selection, the newest submission first."""
    found: list[JobRecord] = []
    while len(found) < limit:
        size = min(PAGE, limit - len(found))
        page = await store.jobs.list(selection, limit=size, after=found[-1] if found else None)
        found += page
        if len(page) < size:
            break
    return found


async def complete_ids(store: Store, selection: JobFilter) -> JobFilter:
    """Return the selection with whole ids.

    Then a command never changes a job that only begins like the id that the operator wrote.

    Raises:
        InvalidArgument: An abbreviated id is ambiguous.
        NotFound: No job has one of the ids.
    """
    ids = [await _complete(store, selection, each) for each in selection.ids]
    return replace(selection, ids=tuple(dict.fromkeys(ids)))


async def _complete(store: Store, selection: JobFilter, text: str) -> str:
    only = JobFilter(ids=(text,), submitter=selection.submitter)
    found = await store.jobs.list(only, limit=PAGE)
    names = list(dict.fromkeys(each.key.id for each in found))
    if text in names or len(names) == 1:
        return text if text in names else names[0]
    if not names:
        raise NotFound(f"job {text!r} was not found in the store. {HINT}")
    shown = ", ".join(one_line(each) for each in names[:MAX_CANDIDATES])
    more = ", …" if len(names) > MAX_CANDIDATES else ""
    raise InvalidArgument(
        f"{text!r} is the begin of {len(names)} ids: {shown}{more}. Write more characters."
    )


async def find_job(store: Store, text: str, submitter: str | None) -> JobRecord:
    """Return the job with an id, or with an id that begins so, with payload and result.

    Raises:
        InvalidArgument: Several jobs match.
        NotFound: No job matches.
    """
    selection = await complete_ids(store, JobFilter(ids=(text,), submitter=submitter))
    listed = await store.jobs.list(selection, limit=PAGE)
    keys: Sequence[JobKey] = [each.key for each in listed if each.key.id in selection.ids]
    if len(keys) > 1:
        services = ", ".join(one_line(key.submitter) for key in keys)
        raise InvalidArgument(
            f"job {text!r}: the services {services} use this id. Pass --submitter SERVICE."
        )
    job = await store.jobs.find(keys[0]) if keys else None
    if job is None:
        raise NotFound(f"job {text!r} was not found in the store. {HINT}")
    return job
