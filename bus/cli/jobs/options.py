"""Options that several commands of `bus jobs` share: ids and filters."""

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from bus.cli.options import duration
from bus.messaging.jobs.records import JobFilter
from bus.messaging.jobs.states import JOB_STATES, JobState
from bus.messaging.suggestions import did_you_mean

__all__ = [
    "Codes",
    "Correlation",
    "Ids",
    "NewerThan",
    "OlderThan",
    "Queues",
    "States",
    "StoreOf",
    "Submitter",
    "Types",
    "build_filter",
    "has_filter",
]

MIN_JOB_ID_LENGTH = 4
"""Minimum number of characters of an abbreviated id."""
TYPE = re.compile(r".+\.v\d+")


def state_named(text: str) -> str:
    """Return a state of a job.

    Raises:
        typer.BadParameter: The text is not a state.
    """
    if text not in JOB_STATES:
        hint = did_you_mean(text, JOB_STATES)
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(JOB_STATES)}{hint}.")
    return text


def type_named(text: str) -> str:
    """Return a type of jobs with its version.

    Raises:
        typer.BadParameter: The text has no version.
    """
    if not TYPE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} has no version. Write a type such as {text}.v1.")
    return text


def abbreviation(text: str) -> str:
    """Return an id, or its first characters.

    Raises:
        typer.BadParameter: The text is too short.
    """
    if len(text) < MIN_JOB_ID_LENGTH:
        raise typer.BadParameter(
            f"{text!r} is too short. Write at least {MIN_JOB_ID_LENGTH} characters of an id."
        )
    return text


StoreOf = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="SERVICE",
        show_default=False,
        help="The service that owns the store. Required if BUS_STORE contains {service}.",
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        show_default=False,
        parser=abbreviation,
        help=f"Ids of jobs. The first {MIN_JOB_ID_LENGTH} or more characters are enough.",
    ),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        parser=state_named,
        show_default=False,
        help=f"Only jobs in this state: {', '.join(JOB_STATES)}. The option is repeatable.",
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        parser=type_named,
        show_default=False,
        help="Only jobs of this type, such as library.scan.v1. The option is repeatable.",
    ),
]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        metavar="QUEUE",
        show_default=False,
        help="Only jobs of this work queue. The option is repeatable.",
    ),
]
Codes = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="CODE",
        show_default=False,
        help="Only jobs with this code of their last error. The option is repeatable.",
    ),
]
OlderThan = Annotated[
    float | None,
    typer.Option(
        "--older-than",
        metavar="TIME",
        parser=duration,
        show_default=False,
        help="Only jobs that were submitted before this time ago: 90s, 15m, 2h or 7d.",
    ),
]
NewerThan = Annotated[
    float | None,
    typer.Option(
        "--newer-than",
        metavar="TIME",
        parser=duration,
        show_default=False,
        help="Only jobs that were submitted within this time: 90s, 15m, 2h or 7d.",
    ),
]
Correlation = Annotated[
    str | None,
    typer.Option(
        "--correlation-id",
        metavar="ID",
        show_default=False,
        help="Only jobs with this correlation id.",
    ),
]
Submitter = Annotated[
    str | None,
    typer.Option(
        "--submitter",
        metavar="SERVICE",
        show_default=False,
        help="Only jobs that this service submitted.",
    ),
]


def build_filter(
    *,
    ids: Sequence[str] | None = None,
    states: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    older_than: float | None = None,
    newer_than: float | None = None,
    **values: Any,
) -> JobFilter:
    """Return the selection of the jobs that match all given filters.

    Args:
        ids: Ids, or their first characters.
        states: States.
        types: Types.
        older_than: Minimum seconds since the submission.
        newer_than: Maximum seconds since the submission.
        **values: `queues`, `codes`, `submitter` and `correlation_id`, as in `JobFilter`.
    """
    now = time.time()
    chosen: list[JobState] = [each for each in JOB_STATES if each in (states or ())]
    return JobFilter(
        ids=tuple(ids or ()),
        states=tuple(chosen),
        types=tuple(types or ()),
        queues=tuple(values.get("queues") or ()),
        codes=tuple(values.get("codes") or ()),
        submitter=values.get("submitter"),
        correlation_id=values.get("correlation_id"),
        submitted_before=None if older_than is None else now - older_than,
        submitted_after=None if newer_than is None else now - newer_than,
    )


def has_filter(selection: JobFilter) -> bool:
    """Return True if a selection has a filter other than states."""
    return any(
        (
            selection.ids,
            selection.types,
            selection.queues,
            selection.codes,
            selection.submitter is not None,
            selection.correlation_id is not None,
            selection.submitted_before is not None,
            selection.submitted_after is not None,
        )
    )
