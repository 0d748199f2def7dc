"""The tables and the JSON of jobs. They have no payload, result, note or text of an error."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.quantities import format_duration
from bus.cli.queue_table import UNKNOWN, age
from bus.messaging.escaped_text import escape_text, one_line
from bus.messaging.jobs.pauses import Pause
from bus.messaging.jobs.records import JobFailure, JobRecord
from bus.messaging.jobs.states import JobState

__all__ = ["STATE_STYLES", "details", "job_to_json", "jobs_table", "pause_text"]

STATE_STYLES: dict[JobState, str] = {
    "queued": "",
    "running": "cyan",
    "retrying": "yellow",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
}
COLUMNS = (
    Column("submitted"),
    Column("id", is_text=True),
    Column("type", is_text=True),
    Column("state", is_text=True),
    Column("done", 3),
    Column("attempt", 4),
    Column("life", 8),
    Column("losses", 7),
    Column("code", 1, is_text=True),
    Column("submitter", 2, is_text=True),
    Column("correlation id", 9, is_text=True),
    Column("worker", 6, is_text=True),
    Column("place", 5, is_text=True),
)


def jobs_table(jobs: Iterable[JobRecord], console: Console, *, now: float) -> RenderableType:
    """Return a table with a row for each job. `now` is in seconds since the epoch."""
    return fitting_table(COLUMNS, (_cells(job, now) for job in jobs), console)


def _cells(job: JobRecord, now: float) -> tuple[str | Text, ...]:
    failure = job.failure
    return (
        age(max(0.0, now - job.submitted_at)),
        Text(one_line(job.key.id), style="bold"),
        one_line(job.type),
        Text(_state(job), style=STATE_STYLES[job.state]),
        _done(job) or UNKNOWN,
        str(job.attempt) if job.attempt else UNKNOWN,
        str(job.life) if job.life > 1 else UNKNOWN,
        str(job.losses) if job.losses else UNKNOWN,
        UNKNOWN if failure is None else one_line(failure.code),
        one_line(job.key.submitter),
        one_line(job.correlation_id),
        UNKNOWN if job.worker is None or job.state != "running" else one_line(job.worker),
        UNKNOWN if failure is None or failure.location is None else one_line(failure.location),
    )


def _state(job: JobRecord) -> str:
    """Return the state. A running job can have a request to cancel it."""
    is_asked = job.cancel is not None and not job.has_ended
    return f"{job.state}, to be cancelled" if is_asked else job.state


def _done(job: JobRecord) -> str:
    progress = None if job.progress is None else job.progress.progress
    return "" if progress is None else f"{progress:.0%}"


# --- One job ---


def details(job: JobRecord, *, now: float, pause: Pause | None = None) -> Table:
    """Return a table of all properties of a job except its payload and result.

    Args:
        job: The job.
        now: Seconds since the epoch.
        pause: Pause of the consumers of its work queue, or None.
    """
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _properties(job, now, pause):
        grid.add_row(Text(name), Text(escape_text(value)))
    return grid


def pause_text(pause: Pause) -> str:
    """Return who has paused the consumers of a queue, and until when."""
    end = "until an operator resumes it" if pause.until is None else f"until {_time(pause.until)}"
    return f"{pause.by} at {_time(pause.at)}, {end}: {pause.reason}"


def _properties(job: JobRecord, now: float, pause: Pause | None) -> Iterator[tuple[str, str]]:
    yield "id", job.key.id
    yield "type", job.type
    yield "submitter", job.key.submitter
    yield "work queue", job.queue
    yield "correlation id", job.correlation_id
    yield "state", _state(job)
    if pause is not None and not job.has_ended:
        yield "paused by", pause_text(pause)
    yield "life", str(job.life)
    yield "attempt", str(job.attempt)
    yield "lost workers", str(job.losses)
    if job.priority:
        yield "priority", str(job.priority)
    yield from _times(job, now)
    if job.worker is not None:
        yield "worker", f"{job.worker}{_lease(job, now)}"
    if job.progress is not None:
        yield "progress", f"{_done(job) or UNKNOWN} (update {job.progress.number})"
    if job.failure is not None:
        yield from _failure("", job.failure)
    if job.cancel is not None:
        asked = job.cancel
        yield "cancelled by", f"{asked.by} at {_time(asked.at)}: {asked.reason}"
    for life in job.lives:
        yield f"life {life.life}", f"retried by {life.by} at {_time(life.at)}: {life.reason}"
        if life.failure is not None:
            yield from _failure(f"life {life.life - 1} ", life.failure)


def _times(job: JobRecord, now: float) -> Iterator[tuple[str, str]]:
    yield "submitted", _time(job.submitted_at)
    yield "recorded", _time(job.recorded_at)
    if job.state in {"queued", "retrying"}:
        late = now - job.run_at
        due = f" (due for {format_duration(late)})" if late > 0 else ""
        yield "next attempt", f"{_time(job.run_at)}{due}"
    if job.started_at is not None:
        yield "started", _time(job.started_at)
    if job.ended_at is not None:
        yield "ended", _time(job.ended_at)
    if job.expires is not None:
        yield "expires", f"{_time(job.expires)}{' (expired)' if job.expires <= now else ''}"


def _lease(job: JobRecord, now: float) -> str:
    if job.state != "running" or job.lease_until is None:
        return ""
    left = job.lease_until - now
    return f" (lease ends in {format_duration(left)})" if left > 0 else " (its lease has ended)"


def _failure(prefix: str, failure: JobFailure) -> Iterator[tuple[str, str]]:
    yield f"{prefix}code", failure.code
    yield f"{prefix}reason", failure.reason or UNKNOWN
    yield f"{prefix}place", failure.location or UNKNOWN


def _time(seconds: float) -> str:
    """Return a time as text, in the time zone of this machine."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


# --- JSON ---


def job_to_json(job: JobRecord, *, is_whole: bool = False) -> dict[str, Any]:
    """Return a job as JSON. The keys are a part of the command's interface.

    Times are in milliseconds since the epoch. Unknown values are null.

    Args:
        job: The job.
        is_whole: True to add the reasons of failures and of orders.
    """
    progress, cancel = job.progress, job.cancel
    value: dict[str, Any] = {
        "id": job.key.id,
        "submitter": job.key.submitter,
        "type": job.type,
        "queue": job.queue,
        "state": job.state,
        "life": job.life,
        "attempt": job.attempt,
        "losses": job.losses,
        "priority": job.priority,
        "correlation_id": job.correlation_id,
        "submitted": _milliseconds(job.submitted_at),
        "recorded": _milliseconds(job.recorded_at),
        "run_at": _milliseconds(job.run_at),
        "expires": _milliseconds(job.expires),
        "started": _milliseconds(job.started_at),
        "ended": _milliseconds(job.ended_at),
        "worker": job.worker,
        "lease_until": _milliseconds(job.lease_until),
        "progress": None if progress is None else progress.progress,
        "progress_number": None if progress is None else progress.number,
        "failure": _failure_to_json(job.failure, is_whole=is_whole),
        "cancel_requested": cancel is not None,
        "pruned": job.is_pruned,
    }
    if is_whole:
        value["cancel"] = None
        if cancel is not None:
            at = _milliseconds(cancel.at)
            value["cancel"] = {"by": cancel.by, "reason": cancel.reason, "at": at}
        value["lives"] = [
            {
                "life": each.life,
                "by": each.by,
                "reason": each.reason,
                "at": _milliseconds(each.at),
                "failure": _failure_to_json(each.failure, is_whole=True),
            }
            for each in job.lives
        ]
    return value


def _failure_to_json(failure: JobFailure | None, *, is_whole: bool) -> dict[str, Any] | None:
    if failure is None:
        return None
    value: dict[str, Any] = {"code": failure.code, "place": failure.location}
    return {**value, "reason": failure.reason} if is_whole else value


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
