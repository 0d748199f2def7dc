"""Sums of the series of several processes or services, by instrument and labels."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bus.messaging.histograms import merge
from bus.messaging.instruments import BREAKER_STATE, INSTRUMENTS, READY, RETRY_BUDGET_TOKENS
from bus.messaging.ports.meter import Instrument, Labels
from bus.messaging.service_info import InstanceStats, Series
from bus.messaging.store_instruments import JOBS_OLDEST_WAITING, JOBS_ROWS, STORE_REACHABLE

__all__ = ["Exemplars", "Owner", "Rows", "Total", "Totals", "clean_label"]

OTHER: Final = "other"
"""Value of each label of the total that all further label sets share, as in the meter."""
MAX_LABEL_LENGTH: Final = 200
"""Maximum number of characters of a label's value. A longer value is cut."""
MAX_TRACE_ID_LENGTH: Final = 100
"""Maximum number of characters of an exemplar's trace id. OpenMetrics allows 128 with its label."""
COMBINED: Final[Mapping[Instrument, Callable[[float, float], float]]] = {
    READY: min,  # the processes of a service are ready if all of them are
    BREAKER_STATE: max,  # the sum of two states has no meaning, and an open breaker must be seen
    RETRY_BUDGET_TOKENS: min,  # tokens of one process do not help another one
    # All instances of a service report the same rows of its store.
    JOBS_ROWS: max,
    JOBS_OLDEST_WAITING: max,
    STORE_REACHABLE: min,
}
"""Functions that combine the gauges of several processes. All other gauges are added."""
BY_NAME = {instrument.name: instrument for instrument in INSTRUMENTS}

Owner = tuple[str, ...]
"""Values of the first labels: the service, or the service and the instance."""
Rows = list[tuple[tuple[str, ...], "Total"]]
"""Values of all labels, each with its total."""
Exemplars = dict[int, tuple[str, float, int]]
"""Trace id, value, and time in milliseconds of one value in a bucket, by the bucket's index."""


@dataclass(slots=True)
class Total:
    """The sum of several series with the same labels."""

    value: float = 0
    """Total of a counter, value of a gauge, or sum of a histogram."""
    buckets: dict[int, int] = field(default_factory=dict)
    exemplars: Exemplars = field(default_factory=dict)

    def add(self, series: "Series | Total") -> None:
        """Add the values of a series, and keep the latest exemplar of each bucket."""
        self.value += series.value
        if series.buckets:
            self.buckets = merge(self.buckets, series.buckets)
        for index, exemplar in series.exemplars.items():
            known = self.exemplars.get(index)
            if _is_trace_id(exemplar[0]) and (known is None or known[2] < exemplar[2]):
                self.exemplars[index] = exemplar


class Totals:
    """The totals of all instruments. Series of an unknown instrument are ignored.

    A newer version of the bus can report such an instrument.
    """

    def __init__(self, *, max_series: int | None = None) -> None:
        """Create totals without values.

        Args:
            max_series: Maximum number of label sets for each instrument and owner. All further
                label sets share one total. None: unlimited.
        """
        self._max_series = max_series
        self._totals: dict[Instrument, dict[Owner, dict[Labels, Total]]] = {}

    def add(self, stats: InstanceStats, owner: Owner, *, with_gauges: bool = True) -> None:
        """Add all series of an instance.

        Args:
            stats: The report of the instance.
            owner: Values of the first labels.
            with_gauges: False for a process that has ended or is silent. Its counters and
                histograms remain, but its gauges describe nothing that exists now.
        """
        owner = tuple(map(clean_label, owner))
        for series in stats.series:
            instrument = BY_NAME.get(series.name)
            if instrument is None or (instrument.kind == "gauge" and not with_gauges):
                continue
            labels = tuple(clean_label(series.labels.get(name, "")) for name in instrument.labels)
            totals = self._totals.setdefault(instrument, {}).setdefault(owner, {})
            labels = self._limited(totals, labels)
            combine = COMBINED.get(instrument)
            if combine is not None and labels in totals:
                totals[labels].value = combine(totals[labels].value, series.value)
            else:
                totals.setdefault(labels, Total()).add(series)

    def _limited(self, totals: Mapping[Labels, Total], labels: Labels) -> Labels:
        """Return the labels of a series, or the shared labels if there are too many series."""
        if self._max_series is None or len(totals) < self._max_series or labels in totals:
            return labels
        return (OTHER,) * len(labels)

    def set_not_ready(self, services: Iterable[str]) -> None:
        """Set the gauge `ready` of these services to 0."""
        for service in map(clean_label, services):
            self._totals.setdefault(READY, {})[service,] = {(): Total()}

    def copy(self) -> "Totals":
        """Return totals with the same values. The copy has no maximum of series."""
        copied = Totals()
        for instrument, owners in self._totals.items():
            for owner, totals in owners.items():
                copies = copied._totals.setdefault(instrument, {}).setdefault(owner, {})
                for labels, total in totals.items():
                    copies.setdefault(labels, Total()).add(total)
        return copied

    def has(self, instrument: Instrument) -> bool:
        """Return True if an instrument has values."""
        return instrument in self._totals

    def rows(self, instrument: Instrument) -> Rows:
        """Return the values of all labels of an instrument, each with its total."""
        return [
            ((*owner, *labels), total)
            for owner, totals in self._totals.get(instrument, {}).items()
            for labels, total in totals.items()
        ]


def _is_trace_id(text: str) -> bool:
    return len(text) <= MAX_TRACE_ID_LENGTH and text.isascii() and text.isalnum()


def clean_label(value: str) -> str:
    """Return a label's value as a text that can be encoded, and cut a long value.

    Other instances report the values, so an exporter must not trust them.
    """
    return value[:MAX_LABEL_LENGTH].encode(errors="replace").decode()
