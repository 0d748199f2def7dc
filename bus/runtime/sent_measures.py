"""The measurements of the messages that one client sends."""

from collections.abc import Callable
from time import perf_counter

from bus.contracts.contract import Contract
from bus.messaging.instruments import SEND_SECONDS, SENT
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.ports.meter import NO_METER, Labels, Meter
from bus.runtime.measure_batch import MeasureBatch

__all__ = ["SendMeter", "send_meter"]

SendMeter = Callable[[Contract, float, BaseException | None], None]
"""A function that reports a sent message: its contract, its start by `perf_counter`, its error."""


def send_meter(meter: Meter, clock: Callable[[], float]) -> SendMeter:
    """Return the function with which a client reports the messages that it sends.

    The client calls it after its whole stack. So the outcome is the error that the caller receives,
    also if the reply did not match its contract. The time includes all attempts.
    """
    if meter is NO_METER:
        return _ignore
    families: dict[str, _Family] = {}

    def report(contract: Contract, started: float, error: BaseException | None) -> None:
        seconds = perf_counter() - started
        family = families.get(contract.type)
        if family is None:
            family = families[contract.type] = _Family(meter, contract)
        labels = family.succeeded if error is None else (*family.labels, outcome_of(error))
        family.add(labels, seconds, clock())

    return report


def _ignore(_contract: Contract, _started: float, _error: BaseException | None) -> None:
    """Do nothing, because this process measures nothing."""


class _Family:
    """The labels of one contract, and the messages that are not reported yet."""

    __slots__ = ("add", "labels", "succeeded")

    def __init__(self, meter: Meter, contract: Contract) -> None:
        self.labels: Labels = (contract.name, str(contract.version), contract.kind)
        self.succeeded: Labels = (*self.labels, OK)
        # The method keeps the batch alive.
        self.add = MeasureBatch(meter, SENT, (SEND_SECONDS,), self.labels).add
