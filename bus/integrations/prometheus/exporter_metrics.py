"""The metrics that `bus exporter` shows: those of the instances, and its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric

from bus.integrations.prometheus.families import build_info, describe, families, gauge
from bus.integrations.prometheus.names import NAMESPACE
from bus.integrations.prometheus.totals import Totals
from bus.messaging.service_info import InstanceStats

__all__ = ["ExporterCollector", "Shown", "exporter_registry"]

OWNER: Final = ("service", "instance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The values that a scrape shows. The thread of the scrape reads only this object."""

    stats: Sequence[InstanceStats] = ()
    versions: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The version of the bus by service and instance."""
    instances: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    """The number of instances by service and state."""
    is_up: bool = False
    """True if the latest question could be sent."""
    seconds: float = 0.0
    """Duration of the latest question."""
    age: float | None = None
    """Seconds since the question that the answers belong to. None without answers."""
    questions: Mapping[str, int] = field(default_factory=dict)
    """The number of questions by outcome."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """The number of answers that are not shown, by reason."""


class ExporterCollector:
    """The collector of an exporter."""

    def __init__(self, read: Callable[[], Shown]) -> None:
        """Create a collector. `read` is called in the thread of each scrape."""
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return the names of the metrics."""
        return describe()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the instances, and those of the exporter itself."""
        shown, totals = self._read(), Totals()
        for stats in shown.stats:
            totals.add(stats, (stats.service, stats.instance))
        yield from families(totals, OWNER)
        rows = [
            (*key, shown.versions.get(key, ""), each.version or "")
            for each in shown.stats
            for key in [(each.service, each.instance)]
        ]
        yield build_info(OWNER, rows)
        text = "Live instances by their state. Silent ones did not answer the latest question."
        yield gauge("instances", text, ("service", "state"), {**shown.instances})
        yield from _own_metrics(shown)


def _own_metrics(shown: Shown) -> Iterator[Metric]:
    left_out = sum(each.left_out for each in shown.stats)
    gauges = {
        "up": ("1 if the latest question could be sent, else 0.", float(shown.is_up)),
        "answers": ("Instances in the metrics.", len(shown.stats)),
        "left_out": ("Entries that were too many for an answer.", left_out),
        "question_duration_seconds": (
            "Duration of the latest question, which includes its window.",
            shown.seconds,
        ),
        "answer_age_seconds": ("Time since the question of these answers.", shown.age),
    }
    for name, (text, value) in gauges.items():
        if value is not None:
            yield gauge(f"exporter_{name}", text, (), {(): value})
    yield _counter("questions", "Questions by outcome.", "outcome", shown.questions)
    yield _counter("answers_rejected", "Answers that are not shown.", "reason", shown.rejected)


def _counter(name: str, text: str, label: str, rows: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{NAMESPACE}exporter_{name}", text, labels=(label,))
    for value, count in rows.items():
        family.add_metric((value,), count)
    return family


def exporter_registry(read: Callable[[], Shown]) -> CollectorRegistry:
    """Return a registry with the metrics of an exporter and of its process."""
    registry = CollectorRegistry()
    registry.register(ExporterCollector(read))
    PlatformCollector(registry=registry)
    ProcessCollector(registry=registry)
    return registry
