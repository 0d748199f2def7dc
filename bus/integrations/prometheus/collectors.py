"""Collectors of prometheus_client for the buses of this process."""

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bus.integrations.prometheus.families import build_info, describe, families
from bus.integrations.prometheus.totals import Totals
from bus.messaging.service_info import InstanceStats

__all__ = [
    "OWNER",
    "Reporting",
    "StatsCollector",
    "collector",
    "library_version",
    "process_registry",
]

OWNER = ("service",)
"""Names of the first labels of each metric. Prometheus itself adds the label `instance`."""


class Report(Protocol):
    """The report of an instance about itself."""

    def stats(self) -> InstanceStats:
        """Return the measurements since the start of the instance."""
        ...


class Reporting(Protocol):
    """An object that reports about itself: `Bus`."""

    @property
    def report(self) -> Report:
        """The report of this instance."""
        ...


def collector(*buses: Reporting) -> Collector:
    """Return a collector for the registry of an application: `REGISTRY.register(collector(bus))`.

    The metrics have the label `service`, so several buses of different services can share the
    collector. Register one collector in a registry.

    Args:
        buses: The buses, open or not.
    """
    return StatsCollector(lambda: [bus.report.stats() for bus in buses])


class StatsCollector:
    """The metrics of some instances, which are read again for each scrape."""

    def __init__(self, read: Callable[[], Iterable[InstanceStats]]) -> None:
        """Create a collector.

        Args:
            read: Function that returns the report of each instance. It is called in the thread of
                the scrape.
        """
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return the names of the metrics, so that a registry need not read values for them."""
        return describe()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of all instruments that have values, and of the versions."""
        totals, versions = Totals(), set[tuple[str, ...]]()
        for stats in self._read():
            totals.add(stats, (stats.service,))
            versions.add((stats.service, library_version(), stats.version or ""))
        yield from families(totals, OWNER)
        yield build_info(OWNER, sorted(versions))


def process_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry with these collectors, and those of the Python process.

    The registry is not the global one of prometheus_client, because its metrics belong to the
    application.
    """
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    PlatformCollector(registry=registry)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def library_version() -> str:
    """Return the version of this library, or `unknown` if it is not installed as a package."""
    try:
        return version("trunkline")
    except PackageNotFoundError:
        return "unknown"
