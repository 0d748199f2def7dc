"""Names of the metrics in Prometheus, derived from the instruments."""

from typing import Final

from bus.messaging.ports.meter import Instrument

__all__ = ["NAMESPACE", "family_name", "metric_name"]

NAMESPACE: Final = "trunkline_"
UNITS = {"s": "_seconds", "1": ""}
"""Suffix of a name for each unit of an instrument."""


def metric_name(instrument: Instrument) -> str:
    """Return the name of an instrument in queries: `trunkline_messages_handled_total`.

    A histogram has three series with this name: `…_bucket`, `…_sum` and `…_count`.
    """
    return family_name(instrument) + ("_total" if instrument.kind == "counter" else "")


def family_name(instrument: Instrument) -> str:
    """Return the name of an instrument in OpenMetrics, which is without `_total`."""
    return NAMESPACE + instrument.name.replace(".", "_") + UNITS[instrument.unit]
