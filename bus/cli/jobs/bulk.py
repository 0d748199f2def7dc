"""Changes of many jobs: their selection, the confirmation, and the audit record."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import typer

from bus.cli.audit import audited
from bus.cli.jobs.opening import run_on_store
from bus.cli.jobs.options import has_filter
from bus.cli.jobs.selection import complete_ids, require_one_submitter, select_jobs
from bus.cli.output import print_json, say
from bus.errors import FailedPrecondition
from bus.messaging.escaped_text import one_line
from bus.messaging.jobs.records import JobFilter, JobKey, JobRecord
from bus.messaging.jobs.states import JOB_STATES, JobState
from bus.messaging.plurals import count_noun
from bus.messaging.ports.store import Store

__all__ = ["Change", "Plan", "change_jobs", "limited_to", "require_jobs"]

Change = Callable[[Store, JobKey], Awaitable[str]]
"""Function that changes one job, and returns the outcome as a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The change of a command."""

    verb: str
    """`cancel` or `retry`."""
    selection: JobFilter
    service: str | None
    limit: int
    dry_run: bool
    yes: bool
    as_json: bool


def require_jobs(selection: JobFilter, selected: bool) -> None:
    """Raise an error if `selected` is False and the selection has no filter."""
    if not selected and not has_filter(selection):
        raise typer.BadParameter(
            "no jobs are selected. Pass ids, filters such as --type or --older-than, or --all."
        )


def limited_to(selection: JobFilter, states: frozenset[JobState]) -> JobFilter:
    """Return the selection without the jobs in other states."""
    chosen = selection.states or JOB_STATES
    return replace(selection, states=tuple(each for each in chosen if each in states))


def change_jobs(plan: Plan, apply: Change, facts: dict[str, str]) -> Counter[str]:
    """Select jobs, ask for confirmation, change the jobs, and write the audit log.

    Returns:
        The number of jobs for each outcome.
    """
    jobs, has_more = _select(plan)
    outcomes: Counter[str] = Counter()
    if not plan.as_json:
        _say_selected(plan, jobs, has_more=has_more)
    if jobs and not plan.dry_run:
        if not plan.yes and not plan.selection.ids:
            question = f"{plan.verb.capitalize()} {count_noun(len(jobs), 'job')}?"
            typer.confirm(question, abort=True, err=True)
        keys = [job.key for job in jobs]

        async def work(store: Store) -> None:
            for key in keys:
                outcomes[await apply(store, key)] += 1

        try:
            run_on_store(plan.service, work)
        finally:  # Write the audit record even if the change was interrupted.
            types = Counter(job.type for job in jobs)
            counts = {word.replace(" ", "_"): count for word, count in outcomes.items()}
            audited(f"jobs {plan.verb}", types=dict(types), **counts, **facts)
    if plan.as_json:
        _print_json(plan, jobs, outcomes, has_more=has_more)
    return outcomes


def _select(plan: Plan) -> tuple[list[JobRecord], bool]:
    """Return the selected jobs, and True if more jobs match."""
    if not plan.selection.states:
        return [], False

    async def work(store: Store) -> list[JobRecord]:
        if not plan.selection.ids:
            return await select_jobs(store, plan.selection, plan.limit + 1)
        selection = await complete_ids(store, plan.selection)
        await require_one_submitter(store, selection)
        named = await select_jobs(store, replace(selection, states=()), plan.limit + 1)
        return _in_state(plan, named)

    found = run_on_store(plan.service, work)
    return found[: plan.limit], len(found) > plan.limit


def _in_state(plan: Plan, named: Sequence[JobRecord]) -> list[JobRecord]:
    """Return the jobs that can be changed, and print a line for each other one.

    Raises:
        FailedPrecondition: No job can be retried. A job that has ended needs no cancellation.
    """
    allowed = plan.selection.states
    if plan.verb == "cancel":
        for job in named:
            if job.has_ended:
                say(f"job {one_line(job.key.id)} has ended before: {job.state}")
        named = [job for job in named if not job.has_ended]
    others = [
        f"job {one_line(job.key.id)} is {job.state}, so the command cannot {plan.verb} it"
        for job in named
        if job.state not in allowed
    ]
    chosen = [job for job in named if job.state in allowed]
    if others and not chosen:
        raise FailedPrecondition(f"{'; '.join(others)}. `bus jobs show ID` shows the job.")
    for line in others:
        say(line)
    return chosen


def _say_selected(plan: Plan, jobs: Sequence[JobRecord], *, has_more: bool) -> None:
    counts = Counter((job.type, job.state) for job in jobs)
    for (type_, state), count in sorted(counts.items()):
        say(f"{type_}: {count} {state}")
    if not jobs and not plan.selection.ids:
        states = " or ".join(plan.selection.states) or "in another state"
        say(f"no matching job is {states}. `bus jobs show ID` shows the state of a job")
    elif plan.dry_run:
        say(f"would {plan.verb} {count_noun(len(jobs), 'job')}")
    if has_more:
        say("more jobs match. Run the command again, or use --limit")


def _print_json(
    plan: Plan, jobs: Sequence[JobRecord], outcomes: Counter[str], *, has_more: bool
) -> None:
    print_json(
        {
            "selected": len(jobs),
            "more": has_more,
            "dry_run": plan.dry_run,
            **{word.replace(" ", "_"): count for word, count in sorted(outcomes.items())},
        },
        compact=True,
    )
