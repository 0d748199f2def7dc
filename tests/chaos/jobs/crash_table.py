"""The table of crash points on the page of reliability."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.chaos.jobs.crash_rounds import KEPT

__all__ = ["broken_points", "crash_section", "has_runs"]

STEPS: Final = {
    "received": "the job has arrived, and is not recorded",
    "recorded": "its row is committed, and its message is not acked",
    "acked": "its message is acked",
    "claimed": "its claim is committed, and no handler has begun",
    "before-handler": "its handler is about to begin",
    "progress-stored": "a progress of its running handler is committed",
    "renewed": "its lease was renewed while its handler runs",
    "in-handler": "its handler has made the first of two writes",
    "after-handler": "its handler has returned, and nothing is committed",
    "before-end": "its end is about to be written",
    "before-commit": "its transaction has both writes and the end, without a commit",
    "committed": "its transaction is committed, and the worker does not know it",
    "ended": "the worker knows it, and the submitter does not",
    "reported": "the broker has confirmed the result",
    "before-retry": "its attempt has failed, and nothing is written",
    "retry-written": "the time of its next attempt is committed",
}
"""Texts for the points, in the order in which a job reaches them."""
NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
TEXT: Final = """\
## Workers of durable jobs that are killed

`BUS_TEST_CRASH_AT` arms one point in the processes of a service with a store.
Several processes kill themselves there with SIGKILL, and one more process ends their jobs.
Each process is a worker with RabbitMQ and the store, and its handler writes two rows in its \
transaction.
A lease lasts 1 s here.
"Lost attempts" are those that the store counts because their process was killed.
"Stuck" are rows that never ended, and "leaked" are rounds in which the last process could not use \
each of its slots.
"Ended after" is the longest time from the start of the last process until all rows had ended.
It contains the rest of a lease, a poll, and the jobs that run alone after two losses.
"""
HEAD: Final = (
    "| killed when | store | runs | jobs | effects | incorrect | lost | stuck | leaked \
| lost attempts | ended after, s |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)
COLUMNS: Final = (
    *("runs", "jobs", "effects", "incorrect", "lost", "stuck", "leaked", "losses", "seconds"),
)


def crash_section(found: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the lines of the section. `found` has the figures by kind of store and point."""
    yield TEXT
    if not found:
        yield "Not run yet.\n"
        return
    yield from HEAD
    total = dict.fromkeys(COLUMNS, 0.0)
    for point, step in STEPS.items():
        for kind, name in NAMES.items():
            figures = found.get(f"{kind}, {point}")
            if figures is None:
                continue
            yield _row(step, name, figures)
            for column in COLUMNS:
                value = figures[column]
                total[column] = (
                    max(total[column], value) if column == "seconds" else total[column] + value
                )
    yield _row("**all**", "", total)
    yield ""
    points = [f"{kind}, {point}" for kind in NAMES for point in STEPS]
    if missing := [point for point in points if point not in found]:
        yield f"Not run yet in the long form: {len(missing)} of {len(points)} rows.\n"


def _row(step: str, store: str, figures: Mapping[str, float]) -> str:
    cells = [
        f"{figures[column]:.1f}" if column == "seconds" else f"{figures[column]:,.0f}"
        for column in COLUMNS
    ]
    return f"| {step} | {store} | {' | '.join(cells)} |"


def broken_points(found: Mapping[str, Any]) -> str:
    """Return the broken promises of all points; empty if all were kept."""
    return "; ".join(
        f"{point}: {figures[name]} {name}"
        for point, figures in found.items()
        for name in KEPT
        if figures[name]
    )


def has_runs(found: Mapping[str, Any], times: int) -> bool:
    """Return True if processes were killed at least `times` times at each point."""
    return all(
        found.get(f"{kind}, {point}", {"runs": 0})["runs"] >= times
        for kind in NAMES
        for point in STEPS
    )
