"""The metric families of prometheus_client that show the totals of the bus."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from math import inf
from typing import Final, cast

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
)

from bus.integrations.prometheus.names import NAMESPACE, family_name
from bus.integrations.prometheus.totals import Exemplars, Rows, Total, Totals, clean_label
from bus.messaging.histograms import BOUNDS, EXPOSED_BOUNDS, cumulative_counts
from bus.messaging.instruments import INSTRUMENTS
from bus.messaging.ports.meter import Instrument

__all__ = ["build_info", "describe", "families", "gauge"]

LE: Final = {**{bound: str(bound) for bound in EXPOSED_BOUNDS}, inf: "+Inf"}
"""Text of the label `le` of each bucket."""
TURN_SECONDS: Final = 0.001
"""Seconds of work after which the thread of a scrape lets the event loop run.

Python itself lets another thread wait for up to 5 ms, at each turn of the event loop.
"""
PAUSE_SECONDS: Final = 0.00005
BUILD_INFO: Final = ("version", "service_version")


Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
FAMILIES: Final[dict[str, Callable[..., Family]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def families(totals: Totals, owner_labels: Sequence[str]) -> Iterator[Metric]:
    """Yield a family for each instrument that has values.

    Args:
        totals: The values.
        owner_labels: Names of the first labels: `service`, or `service` and `instance`.
    """
    for instrument in INSTRUMENTS:
        if totals.has(instrument):
            family = _empty_family(instrument, owner_labels)
            # A writer only iterates over the samples.
            family.samples = cast("list[Sample]", _Samples(family, totals.rows(instrument)))
            yield family


class _Samples:
    """The samples of a family, of which only those of one set of labels exist at a time.

    With thousands of series, a list of all samples would cause long garbage collections, which
    stop the event loop as well.
    """

    def __init__(self, family: Family, rows: Rows) -> None:
        self._family = family
        self._rows = rows

    def __iter__(self) -> Iterator[Sample]:
        family, began = copy(self._family), time.perf_counter()
        for labels, total in self._rows:
            if time.perf_counter() - began > TURN_SECONDS:
                time.sleep(PAUSE_SECONDS)
                began = time.perf_counter()
            family.samples = []
            if isinstance(family, HistogramMetricFamily):
                family.add_metric(labels, _buckets(total), total.value)
            else:
                family.add_metric(labels, total.value)
            yield from family.samples


def describe() -> Iterator[Metric]:
    """Yield an empty family for each instrument, with which a registry checks the names."""
    for instrument in INSTRUMENTS:
        yield _empty_family(instrument, ())
    yield build_info(("service",), ())


def build_info(owner_labels: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Metric:
    """Return the family `trunkline_build_info`, of which each value is 1.

    Args:
        owner_labels: Names of the first labels.
        rows: Values of the first labels, the version of the bus, and the version of the service.
    """
    return gauge(
        "build_info",
        "Versions of the bus and of the service. The value is always 1.",
        (*owner_labels, *BUILD_INFO),
        dict.fromkeys(rows, 1),
    )


def gauge(
    name: str, text: str, labels: Sequence[str], rows: dict[tuple[str, ...], float]
) -> GaugeMetricFamily:
    """Return a family of gauges. `rows` has a value for each set of labels."""
    family = GaugeMetricFamily(NAMESPACE + name, text, labels=labels)
    cleaned = {tuple(map(clean_label, values)): value for values, value in rows.items()}
    for values, value in cleaned.items():
        family.add_metric(values, value)
    return family


def _empty_family(instrument: Instrument, owner_labels: Sequence[str]) -> Family:
    labels = (*owner_labels, *instrument.labels)
    unit = "seconds" if instrument.unit == "s" else ""
    return FAMILIES[instrument.kind](
        family_name(instrument), instrument.description, labels=labels, unit=unit
    )


def _buckets(total: Total) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    exemplars = _exposed_exemplars(total.exemplars) if total.exemplars else {}
    return [
        (LE[bound], count, exemplars[index]) if index in exemplars else (LE[bound], count)
        for index, (bound, count) in enumerate(cumulative_counts(total.buckets))
    ]


def _exposed_exemplars(exemplars: Exemplars) -> dict[int, Exemplar]:
    """Return the latest exemplar of each bucket that Prometheus receives, by its index."""
    latest: Exemplars = {}
    for index, exemplar in exemplars.items():
        bound = BOUNDS[index] if 0 <= index < len(BOUNDS) else inf
        exposed = bisect_left(EXPOSED_BOUNDS, bound)
        if exposed not in latest or latest[exposed][2] < exemplar[2]:
            latest[exposed] = exemplar
    return {
        index: Exemplar({"trace_id": trace_id}, value, timestamp / 1000)
        for index, (trace_id, value, timestamp) in latest.items()
    }
