"""The jobs that a command selects in the store."""

from collections.abc import Sequence
from dataclasses import replace

from bus.errors import InvalidArgument, NotFound
from bus.messaging.escaped_text import one_line
from bus.messaging.jobs.records import JobFilter, JobKey, JobRecord
from bus.messaging.ports.store import Store

__all__ = ["complete_ids", "find_job", "require_one_submitter", "select_jobs"]

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
    """Return the selection with whole ids, which selects no job that only begins with one of them.

    An id that exists is whole, however many other ids begin with it. A sender chooses its ids, so
    it could otherwise hide the job of another one.

    Raises:
        InvalidArgument: An abbreviated id is ambiguous.
        NotFound: No job has one of the ids.
    """
    ids = [await _complete(store, selection, each) for each in selection.ids]
    return replace(selection, ids=tuple(dict.fromkeys(ids)), has_whole_ids=True)


async def require_one_submitter(store: Store, selection: JobFilter) -> None:
    """Raise an error if several services use one of the whole ids of a selection.

    Raises:
        InvalidArgument: The selection has jobs of several services with one id.
    """
    for each in selection.ids:
        only = replace(selection, ids=(each,), states=())
        found = await store.jobs.list(only, limit=MAX_CANDIDATES + 1)
        if len(found) > 1:
            raise _ambiguous(each, [job.key for job in found])


def _ambiguous(text: str, keys: Sequence[JobKey]) -> InvalidArgument:
    services = ", ".join(one_line(key.submitter) for key in keys[:MAX_CANDIDATES])
    more = ", …" if len(keys) > MAX_CANDIDATES else ""
    return InvalidArgument(
        f"job {text!r}: the services {services}{more} use this id. Pass --submitter SERVICE."
    )


async def _complete(store: Store, selection: JobFilter, text: str) -> str:
    begins = JobFilter(ids=(text,), submitter=selection.submitter)
    if await store.jobs.list(replace(begins, has_whole_ids=True), limit=1):
        return text
    found = await store.jobs.list(begins, limit=PAGE)
    names = list(dict.fromkeys(each.key.id for each in found))
    if len(names) == 1:
        return names[0]
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
    await require_one_submitter(store, selection)
    listed = await store.jobs.list(selection, limit=1)
    job = await store.jobs.find(listed[0].key) if listed else None
    if job is None:
        raise NotFound(f"job {text!r} was not found in the store. {HINT}")
    return job
