"""The arithmetic of the report: medians, ratios within one run, and what was to be reached. Nothing here measures or writes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import AIO_PIKA, FASTSTREAM, OURS, SIGNED, C

__all__ = ["TARGETS", "Spread", "Target", "Works", "cpu", "ratio", "spread", "value"]

Works = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""By work, by peer, one sample a round."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median, and the range around it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """None where nothing was measured."""
    return Spread(median=statistics.median(values), low=min(values), high=max(values)) if values else None


def values(works: Works, work: str, peer: str, metric: str) -> list[float]:
    """A metric of each round; empty where the peer, the work or the metric is missing."""
    return [sample[metric] for sample in works.get(work, {}).get(peer, ()) if metric in sample]


def value(works: Works, work: str, peer: str, metric: str = "rate") -> Spread | None:
    """Over all rounds."""
    return spread(values(works, work, peer, metric))


def ratio(works: Works, work: str, peer: str, other: str, metric: str = "rate") -> Spread | None:
    """`peer` to `other`, round by round: what disturbs one round disturbs both. None where one is missing."""
    pairs = zip(values(works, work, peer, metric), values(works, work, other, metric), strict=False)
    return spread([mine / theirs for mine, theirs in pairs if theirs])


def cpu(works: Works, work: str, peer: str) -> dict[str, float]:
    """CPU microseconds a message by side, the median of the rounds; a side that was not seen is missing."""
    rounds = [sample.get("cpu", {}) for sample in works.get(work, {}).get(peer, ())]
    names = dict.fromkeys(name for each in rounds for name in each)
    return {name: statistics.median([each[name] for each in rounds if name in each]) for name in names}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One line of what was to be reached."""

    title: str
    bound: float
    work: str
    against: str | None = None
    """Another peer in the same work; None: megabytes beside an empty queue."""
    peer: str = OURS
    metric: str = "rate"
    most: bool = False
    """The bound is the most that it may be."""

    def measured(self, works: Works) -> float | None:
        """From these figures; None where something is missing."""
        if self.against is not None:
            found = ratio(works, self.work, self.peer, self.against, self.metric)
            return found.median if found else None
        full, empty = value(works, self.work, OURS, self.metric), value(works, "waiting0", OURS, self.metric)
        return full.median - empty.median if full and empty else None

    def reached(self, works: Works) -> bool | None:
        """None where it was not measured."""
        found = self.measured(works)
        if found is None:
            return None
        return found <= self.bound if self.most else found >= self.bound


TARGETS = (
    Target(title="RPC, 100 in flight, against bare aio-pika", work="rpc100", against=AIO_PIKA, bound=6),
    Target(title="the same against FastStream's `request`", work="rpc100", against=FASTSTREAM, bound=20),
    Target(title="the same against the C pair", work="rpc100", against=C, bound=0.45),
    Target(
        title="RPC, 1 in flight, median latency against bare aio-pika's", work="rpc1", against=AIO_PIKA, metric="p50", bound=0.9, most=True
    ),
    Target(title="publish with confirm, quorum queue, 200 in flight, against aio-pika", work="publish", against=AIO_PIKA, bound=3),
    Target(title="consume with ack, against aio-pika", work="consume", against=AIO_PIKA, bound=4),
    Target(title="RPC with tokens, 100 in flight, against the same without", work="rpc100", peer=SIGNED, against=OURS, bound=0.9),
    Target(
        title="events with proofs, from publish to handled, against the same without", work="fanout1", peer=SIGNED, against=OURS, bound=0.4
    ),
    Target(title="the same, published alone", work="publish", peer=SIGNED, against=OURS, bound=0.4),
    Target(title="the same, a backlog consumed alone", work="consume", peer=SIGNED, against=OURS, bound=0.4),
    Target(title="memory while 1,000,000 wait, beside an empty queue, MB", work="waiting1000000", metric="rss", bound=20, most=True),
)
