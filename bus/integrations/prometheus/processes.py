"""The metrics of several processes that one parent runs (`bus run --processes 2`).

A process that is restarted begins to count at 0. The parent adds the last counters of the ended
process that it has read, so the sum never decreases.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from pydantic import ValidationError

from bus.integrations.prometheus.collectors import OWNER, library_version
from bus.integrations.prometheus.families import build_info, describe, families, gauge
from bus.integrations.prometheus.totals import Totals
from bus.messaging.service_info import InstanceStats, ProcessStats

__all__ = ["ProcessesCollector", "processes_registry"]

MAX_RETIRED_SERIES = 1_000
"""Maximum number of label sets for each instrument and service of ended processes."""


@dataclass(slots=True)
class Slot:
    """One of the processes that the parent keeps running."""

    is_answering: bool = False
    pid: int | None = None
    last: dict[str, InstanceStats] = field(default_factory=dict)
    """The last report of each service."""


class ProcessesCollector:
    """The sums over all processes."""

    def __init__(self, count: int) -> None:
        """Create a collector for `count` processes that have not answered yet."""
        self._slots = [Slot() for _ in range(count)]
        self._ended = Totals(max_series=MAX_RETIRED_SERIES)
        """Counters and histograms of the processes that have ended."""

    def update(self, contents: Sequence[bytes | None]) -> None:
        """Record the answers of all processes, in the order of their numbers.

        Args:
            contents: JSON of `ProcessStats`. None: the process did not answer.
        """
        for slot, content in zip(self._slots, contents, strict=True):
            stats = _parse(content)
            slot.is_answering = stats is not None
            if stats is None:
                continue
            slot.pid = stats.pid
            for instance in stats.instances:
                earlier = slot.last.get(instance.service)
                if earlier is not None and earlier.instance != instance.instance:
                    self._ended.add(earlier, (earlier.service,), with_gauges=False)
                slot.last[instance.service] = instance

    def describe(self) -> Iterable[Metric]:
        """Return the names of the metrics."""
        return describe()

    def collect(self) -> Iterator[Metric]:
        """Yield the sums, the versions, and the number of processes that answered."""
        totals = self._ended.copy()
        versions = set[tuple[str, ...]]()
        for slot in self._slots:
            for service, stats in slot.last.items():
                totals.add(stats, (service,), with_gauges=slot.is_answering)
                versions.add((service, library_version(), stats.version or ""))
        answering = sum(slot.is_answering for slot in self._slots)
        if answering < len(self._slots):
            totals.set_not_ready({service for slot in self._slots for service in slot.last})
        yield from families(totals, OWNER)
        yield build_info(OWNER, sorted(versions))
        yield gauge(
            "processes",
            "Processes of `bus run`, by whether they answered this scrape.",
            ("state",),
            {("answering",): answering, ("silent",): len(self._slots) - answering},
        )
        yield from self._resources()

    def _resources(self) -> Iterator[Metric]:
        """Yield the CPU, memory and files of each process, with the number of the process."""
        merged: dict[str, Metric] = {}
        for number, slot in enumerate(self._slots, start=1):
            if slot.pid is None or not slot.is_answering:
                continue
            for metric in ProcessCollector(pid=partial(int, slot.pid), registry=None).collect():
                family = merged.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    labels: Mapping[str, str] = {**sample.labels, "process": str(number)}
                    family.add_sample(sample.name, dict(labels), sample.value)
        yield from merged.values()


def _parse(content: bytes | None) -> ProcessStats | None:
    if content is None:
        return None
    try:
        return ProcessStats.model_validate_json(content)
    except ValidationError:
        return None


def processes_registry(collector: ProcessesCollector) -> CollectorRegistry:
    """Return a registry for the parent of several processes."""
    registry = CollectorRegistry()
    registry.register(collector)
    PlatformCollector(registry=registry)
    return registry
