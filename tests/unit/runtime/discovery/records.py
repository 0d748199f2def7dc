"""Records of instances for tests: statistics with a few series."""

from collections.abc import Sequence
from typing import Any

from bus.messaging import instruments
from bus.messaging.control import Answer
from bus.messaging.histograms import buckets_of
from bus.messaging.ports.meter import Instrument
from bus.messaging.service_info import (
    ContractInfo,
    HandlerState,
    InstanceInfo,
    InstanceState,
    InstanceStats,
    Series,
)
from bus.runtime.discovery.live_view import LiveView

GET = {"operation": "billing.get", "version": "1", "kind": "request", "subscription": ""}
SENT = {"operation": "stock.find", "version": "2", "kind": "request"}


def stats(instance: str = "a", **fields: Any) -> InstanceStats:
    """Return statistics. Keyword arguments replace the defaults."""
    values = {"service": "billing", "started": 1, "state": "ready", "since": 1, "version": "1.0"}
    return InstanceStats.model_validate({**values, "instance": instance, **fields})


def counted(
    amount: int, outcome: str = "ok", *, labels: dict[str, str] = GET, **fields: Any
) -> Series:
    """Return the counter of handled messages, or of sent messages for the labels `SENT`.

    All messages are recent, unless the keyword argument `recent` has their number. None are of the
    last seconds, unless `latest` has their number.
    """
    instrument = instruments.SENT if labels is SENT else instruments.HANDLED
    caller = {} if labels is SENT else {"caller": fields.pop("caller", "shop")}
    return Series(
        name=instrument.name,
        labels={**labels, **caller, "outcome": outcome},
        value=amount,
        recent_value=fields.pop("recent", amount),
        latest_value=fields.pop("latest", 0),
    )


def timed(
    *seconds: float,
    instrument: Instrument = instruments.HANDLER_SECONDS,
    labels: dict[str, str] = GET,
    earlier: Sequence[float] = (),
) -> Series:
    """Return a histogram with these recent values, and with values from before them."""
    recent, largest = buckets_of(seconds), max(seconds, default=0)
    return Series(
        name=instrument.name,
        labels=labels,
        value=sum((*earlier, *seconds)),
        count=len(earlier) + len(seconds),
        max=max((*earlier, *seconds), default=0),
        buckets=recent + buckets_of(earlier),
        recent=recent,
        recent_max=largest,
    )


def shed(amount: int, reason: str, **fields: Any) -> Series:
    """Return the counter of refused requests. All are recent, unless `recent` has their number."""
    return Series(
        name=instruments.SHED.name,
        labels={**GET, "caller": "shop", "reason": reason},
        value=amount,
        recent_value=fields.pop("recent", amount),
    )


def rejected(amount: int, policy: str, **fields: Any) -> Series:
    """Return the counter of calls that a policy did not send, as `shed` does."""
    return called(instruments.CALLS_REJECTED, amount, policy=policy, **fields)


def called(instrument: Instrument, amount: int, **fields: Any) -> Series:
    """Return a counter of the caller's policies, as `shed` does. Other fields are labels."""
    recent = fields.pop("recent", amount)
    return Series(
        name=instrument.name,
        labels={"operation": SENT["operation"], "version": SENT["version"], **fields},
        value=amount,
        recent_value=recent,
    )


def handler(**fields: Any) -> HandlerState:
    """Return the state of a handler. Keyword arguments replace the defaults."""
    values = {
        "operation": "billing.get",
        "version": 1,
        "kind": "request",
        "queue": "billing.requests.get.v1",
        "slots": 4,
        "free": 4,
        "in_flight": 0,
    }
    return HandlerState.model_validate({**values, **fields})


def view_of(*records: InstanceState) -> LiveView:
    """Return a view in which these instances have answered once, just now."""
    view = LiveView()
    view.add_round([Answer(record=record, seconds=0) for record in records], begun=view.clock())
    return view


def info(instance: str = "a", *contracts: ContractInfo, service: str = "billing") -> InstanceInfo:
    """Return the answer of an instance to INFO."""
    return InstanceInfo(
        service=service,
        instance=instance,
        started=1,
        state="ready",
        bus_version="0.16.0",
        python_version="3.11.7",
        contracts=contracts,
    )


def served(digest: str = "ab" * 32, **fields: Any) -> ContractInfo:
    """Return a contract that an instance serves. Keyword arguments replace the defaults."""
    values = {
        "type": "billing.get.v1",
        "kind": "request",
        "permission": "read:bills",
        "queue": "billing.requests.get.v1",
    }
    return ContractInfo.model_validate({**values, "digest": digest, **fields})
