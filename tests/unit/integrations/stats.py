"""Reports of instances, as tests of the metrics make them."""

from bus.messaging.histograms import bucket_of
from bus.messaging.instruments import HANDLED, HANDLER_SECONDS, READY, SLOTS
from bus.messaging.ports.meter import Instrument
from bus.messaging.service_info import InstanceStats, Series

HANDLED_LABELS = {
    "operation": "book.find",
    "version": "1",
    "kind": "request",
    "subscription": "",
    "caller": "till",
    "outcome": "ok",
}


def number(instrument: Instrument, value: float, **labels: str) -> Series:
    # A test can make a series that no answer can have, such as one with a lone surrogate.
    return Series(name=instrument.name, value=value).model_copy(update={"labels": labels})


def handled(value: float, **labels: str) -> Series:
    return number(HANDLED, value, **{**HANDLED_LABELS, **labels})


def durations(
    *values: float, exemplars: dict[int, tuple[str, float, int]] | None = None, **labels: str
) -> Series:
    buckets: dict[int, int] = {}
    for value in values:
        buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    known = {name: HANDLED_LABELS[name] for name in HANDLER_SECONDS.labels}
    return Series(
        name=HANDLER_SECONDS.name,
        labels={**known, **labels},
        value=sum(values),
        count=len(values),
        max=max(values, default=0),
        buckets=buckets,
    ).model_copy(update={"exemplars": exemplars or {}})


def stats(
    *series: Series, service: str = "library", instance: str = "a", version: str | None = None
) -> InstanceStats:
    return InstanceStats(
        service=service, instance=instance, started=0, since=0, state="ready", series=series
    ).model_copy(update={"version": version})


def ready(value: int) -> Series:
    return number(READY, value)


def slots(value: int) -> Series:
    known = {name: HANDLED_LABELS[name] for name in SLOTS.labels}
    return number(SLOTS, value, **known)
