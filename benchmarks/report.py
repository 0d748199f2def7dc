"""The arithmetic of the report: medians, ratios within one run, and targets. It has no I/O."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import (
    AIO_PIKA,
    CELERY_STORED,
    DBOS,
    FASTSTREAM,
    ON_POSTGRES,
    OURS,
    PGQUEUER,
    PROCRASTINATE,
    SIGNED,
    TASKIQ_STORED,
    C,
)

__all__ = ["TARGETS", "Spread", "Target", "Works", "cpu", "ratio", "spread", "value"]

Works = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Samples by workload and peer, one for each round."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median and the range around it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """Return the median and range of the values, or None if there are none."""
    return (
        Spread(median=statistics.median(values), low=min(values), high=max(values))
        if values
        else None
    )


def values(works: Works, work: str, peer: str, metric: str) -> list[float]:
    """Return a metric of each round; empty if the peer, the workload or the metric is missing."""
    return [sample[metric] for sample in works.get(work, {}).get(peer, ()) if metric in sample]


def value(works: Works, work: str, peer: str, metric: str = "rate") -> Spread | None:
    """Return the median and range of a metric over all rounds."""
    return spread(values(works, work, peer, metric))


def ratio(works: Works, work: str, peer: str, other: str, metric: str = "rate") -> Spread | None:
    """Return the ratio of `peer` to `other`, round by round, or None if one of them is missing.

    A disturbance in a round affects both peers.
    """
    pairs = zip(values(works, work, peer, metric), values(works, work, other, metric), strict=False)
    return spread([mine / theirs for mine, theirs in pairs if theirs])


def cpu(works: Works, work: str, peer: str) -> dict[str, float]:
    """Return the median CPU microseconds for each message, by side; unseen sides are missing."""
    rounds = [sample.get("cpu", {}) for sample in works.get(work, {}).get(peer, ())]
    names = dict.fromkeys(name for each in rounds for name in each)
    return {
        name: statistics.median([each[name] for each in rounds if name in each]) for name in names
    }


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target of the benchmarks."""

    title: str
    bound: float
    work: str
    against: str | None = None
    """Another peer in the same workload, or None for megabytes above those with an empty queue."""
    peer: str = OURS
    metric: str = "rate"
    most: bool = False
    """True if the bound is a maximum."""

    def measured(self, works: Works) -> float | None:
        """Return the measured figure, or None if a value is missing."""
        if self.against is not None:
            found = ratio(works, self.work, self.peer, self.against, self.metric)
            return found.median if found else None
        full, empty = (
            value(works, self.work, OURS, self.metric),
            value(works, "waiting0", OURS, self.metric),
        )
        return full.median - empty.median if full and empty else None

    def reached(self, works: Works) -> bool | None:
        """Return True if the target is reached, or None if it was not measured."""
        found = self.measured(works)
        if found is None:
            return None
        return found <= self.bound if self.most else found >= self.bound


TARGETS = (
    Target(
        title="RPC, 100 in flight, against bare aio-pika", work="rpc100", against=AIO_PIKA, bound=6
    ),
    Target(
        title="RPC, 100 in flight, against FastStream's `request`",
        work="rpc100",
        against=FASTSTREAM,
        bound=20,
    ),
    Target(title="RPC, 100 in flight, against the C pair", work="rpc100", against=C, bound=0.45),
    Target(
        title="RPC, 1 in flight, median latency, against bare aio-pika",
        work="rpc1",
        against=AIO_PIKA,
        metric="p50",
        bound=0.9,
        most=True,
    ),
    Target(
        title="publish with confirm, quorum queue, 200 in flight, against bare aio-pika",
        work="publish",
        against=AIO_PIKA,
        bound=3,
    ),
    Target(
        title="consume with ack, against bare aio-pika",
        work="consume",
        against=AIO_PIKA,
        bound=4,
    ),
    Target(
        title="RPC with tokens, 100 in flight, against RPC without tokens",
        work="rpc100",
        peer=SIGNED,
        against=OURS,
        bound=0.9,
    ),
    Target(
        title="events with proofs, from publish to handled, against events without proofs",
        work="fanout1",
        peer=SIGNED,
        against=OURS,
        bound=0.4,
    ),
    Target(
        title="publish with proofs, against publish without proofs",
        work="publish",
        peer=SIGNED,
        against=OURS,
        bound=0.4,
    ),
    Target(
        title="consume a backlog with proofs, against a backlog without proofs",
        work="consume",
        peer=SIGNED,
        against=OURS,
        bound=0.4,
    ),
    *(
        Target(
            title=f"durable jobs with stored results, against {name}",
            work="durable",
            peer=ON_POSTGRES,
            against=peer,
            bound=2,
        )
        for peer, name in (
            (CELERY_STORED, "Celery"),
            (TASKIQ_STORED, "Taskiq"),
            (PROCRASTINATE, "procrastinate"),
            (PGQUEUER, "PgQueuer"),
            (DBOS, "DBOS"),
        )
    ),
    Target(
        title="memory while 1,000,000 wait, above that with an empty queue, MB",
        work="waiting1000000",
        metric="rss",
        bound=20,
        most=True,
    ),
)
