"""The parts of a dashboard, and functions that write queries in PromQL.

The names of metrics are derived from the instruments of the bus. Grafana replaces `$service`,
`$operation`, `$__rate_interval` and `$__range`.
"""

from dataclasses import dataclass, field
from typing import Literal

from bus.integrations.prometheus import metric_name
from bus.messaging.ports.meter import Instrument

__all__ = [
    "BY_OPERATION",
    "BY_SENDER",
    "CALLERS_FAULTS",
    "FAILED",
    "GREEN",
    "NOT_OK",
    "OF_OPERATION",
    "ORANGE",
    "RED",
    "Panel",
    "Query",
    "Row",
    "increase",
    "quantile",
    "quantiles",
    "rate",
    "series",
]

Kind = Literal["timeseries", "stat", "table", "heatmap", "state-timeline"]

CALLERS_FAULTS = (
    *("cancelled", "invalid_argument", "not_found", "already_exists", "permission_denied"),
    *("unauthenticated", "resource_exhausted", "failed_precondition", "aborted", "out_of_range"),
)
"""Codes that are not failures of the service: OpenTelemetry's conventions for gRPC servers."""


@dataclass(frozen=True)
class Query:
    """A query in PromQL, and the name of its lines with labels in double braces."""

    expr: str
    legend: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel. Its width is a share of the 24 columns of Grafana's grid."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 9
    thresholds: tuple[tuple[float, str], ...] = ()
    """Values from which the panel has a color. Below the first value it is green."""
    is_red_below: float | None = None
    """Value of a stat below which it is red. It replaces `thresholds`."""
    has_exemplars: bool = False
    """True if points show single messages with the ids of their traces."""
    columns: tuple[tuple[str, str], ...] = ()
    """Columns of a table that are shown, in their order: the label or `Value`, and its heading."""
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Text and color of a value."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def series(instrument: Instrument, *matchers: str, part: str = "") -> str:
    """Return a selector for the chosen services and, if it has that label, operations."""
    own = ['service=~"$service"']
    own += ['operation=~"$operation"'] if "operation" in instrument.labels else []
    return f"{metric_name(instrument)}{part}{{{','.join([*own, *matchers])}}}"


def rate(by: str, instrument: Instrument, *matchers: str) -> str:
    """Return the rate per second of a counter, summed by labels."""
    return f"sum by ({by}) (rate({series(instrument, *matchers)}[$__rate_interval]))"


def increase(by: str, instrument: Instrument, range_: str) -> str:
    """Return the number of messages in a range of time, summed by labels.

    PromQL's `increase` does not see the value with which a series begins. A series that did not
    exist before the range therefore counts with its whole value.
    """
    counter = series(instrument)
    return (
        f"sum by ({by}) (({counter} unless {counter} offset {range_}) "
        f"or increase({counter}[{range_}]))"
    )


def quantile(share: float, by: str, instrument: Instrument, *matchers: str) -> str:
    """Return a quantile of a histogram by labels."""
    buckets = series(instrument, *matchers, part="_bucket")
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({buckets}[$__rate_interval])))"


def quantiles(instrument: Instrument, legend: str) -> tuple[Query, ...]:
    """Return the queries for three quantiles of a histogram by operation."""
    return tuple(
        Query(quantile(share, "service, operation", instrument), f"{name} {legend}")
        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
    )


OF_OPERATION = "{{operation}} at {{service}}"
"""Legend of the service that handles an operation."""
BY_SENDER = "{{operation}} from {{service}}"
"""Legend of the service that sends messages of an operation."""
BY_OPERATION = "service, operation"
NOT_OK = 'outcome!="ok"'
FAILED = f'outcome!~"ok|{"|".join(CALLERS_FAULTS)}"'
RED, ORANGE, GREEN = "red", "orange", "green"
