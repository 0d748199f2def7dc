"""`bus jobs watch`: follow jobs until they have ended."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bus.cli.jobs.opening import run_on_store
from bus.cli.jobs.options import Correlation, Ids, Queues, StoreOf, Submitter, Types, build_filter
from bus.cli.jobs.selection import complete_ids, select_jobs
from bus.cli.jobs.table import job_to_json
from bus.cli.options import AsJson, finite
from bus.cli.output import EscapingConsole, print_json, say
from bus.messaging.escaped_text import one_line
from bus.messaging.jobs.records import JobFilter, JobKey, JobRecord
from bus.messaging.jobs.states import ACTIVE_STATES, JOB_STATES
from bus.messaging.labels import short_id
from bus.messaging.plurals import count_noun
from bus.messaging.ports.store import Store

__all__ = ["JobBars", "watch_"]

MAX_WATCHED = 100
"""Maximum number of jobs that a command follows."""
MAX_BARS = 20
"""Maximum number of bars. All jobs together have one more."""


def watch_(
    ids: Ids = None,
    *,
    type_: Types = None,
    queue: Queues = None,
    correlation_id: Correlation = None,
    submitter: Submitter = None,
    service: StoreOf = None,
    interval: Annotated[
        float,
        typer.Option(
            min=0.1, callback=finite, metavar="SECONDS", help="Time between two looks at the store."
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Follow jobs until they have ended, with a progress bar for each.

    Without ids, the command follows the jobs that match the filters and have not ended, at most
    100. If standard error is not a terminal, it prints only the last state of each job.

    The exit code is 0 if all jobs have succeeded, and 1 if a job has failed or was cancelled. If
    the command ends before the jobs, for example by Ctrl-C, the jobs continue.
    """
    selection = build_filter(
        ids=ids,
        states=None if ids else sorted(ACTIVE_STATES),
        types=type_,
        queues=queue,
        correlation_id=correlation_id,
        submitter=submitter,
    )
    jobs = run_on_store(service, lambda store: follow(store, selection, interval))
    if as_json:
        print_json({"jobs": [job_to_json(job) for job in jobs]}, compact=True)
    else:
        for job in jobs:
            typer.echo(f"{one_line(job.key.id)} {one_line(job.type)} {_last_state(job)}")
        if not jobs:
            say("no matching job waits or runs")
    if any(job.state != "succeeded" for job in jobs):
        raise typer.Exit(1)


def _last_state(job: JobRecord) -> str:
    return job.state if job.failure is None else f"{job.state} ({one_line(job.failure.code)})"


async def follow(store: Store, selection: JobFilter, interval: float) -> list[JobRecord]:
    """Show the progress of jobs until they have ended, and return their last records.

    Args:
        store: The open store.
        selection: The jobs to follow, as they are at the first look.
        interval: Seconds between two looks.
    """
    chosen = await complete_ids(store, selection)
    found = await select_jobs(store, chosen, MAX_WATCHED)
    jobs = {job.key: job for job in found if not chosen.ids or job.key.id in chosen.ids}
    with JobBars(list(jobs.values())) as bars:
        while active := [key for key, job in jobs.items() if not job.has_ended]:
            await asyncio.sleep(interval)
            jobs |= await _present(store, active)
            bars.update(jobs.values())
    return list(jobs.values())


async def _present(store: Store, keys: Sequence[JobKey]) -> dict[JobKey, JobRecord]:
    """Return the present records of jobs, without those that retention has removed."""
    only = JobFilter(ids=tuple(key.id for key in keys))
    listed = await select_jobs(store, only, 2 * MAX_WATCHED)
    return {job.key: job for job in listed if job.key in keys}


class JobBars:
    """Progress bars of jobs on standard error. Without a terminal, nothing is shown."""

    def __init__(self, jobs: Sequence[JobRecord], console: EscapingConsole | None = None) -> None:
        """Create the bars.

        Args:
            jobs: The jobs at the first look.
            console: The console. None: standard error.
        """
        console = console or EscapingConsole(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task(
            count_noun(len(jobs), "job"), total=max(1, len(jobs)), state=""
        )
        self._bars: dict[JobKey, TaskID] = {
            job.key: self._progress.add_task(
                f"{one_line(job.type)} {short_id(job.key.id)}", total=1.0, state=""
            )
            for job in jobs[:MAX_BARS]
        }
        self.update(jobs)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, jobs: Iterable[JobRecord]) -> None:
        """Show the present state of the jobs."""
        states: Counter[str] = Counter()
        for job in jobs:
            states[job.state] += 1
            bar = self._bars.get(job.key)
            if bar is not None:
                self._progress.update(bar, completed=_share_done(job), state=_state_of(job))
        text = ", ".join(f"{states[each]} {each}" for each in JOB_STATES if states[each])
        ended = sum(states.values()) - sum(states[each] for each in ACTIVE_STATES)
        self._progress.update(self._all, completed=ended, state=text)


def _share_done(job: JobRecord) -> float:
    if job.state == "succeeded":
        return 1.0
    return (job.progress and job.progress.progress) or 0.0


def _state_of(job: JobRecord) -> str:
    attempt = f", attempt {job.attempt}" if job.attempt > 1 and not job.has_ended else ""
    asked = ", to be cancelled" if job.cancel is not None and not job.has_ended else ""
    return f"{_last_state(job)}{attempt}{asked}"
