"""The measurements of the messages that one client sends."""

from collections.abc import Callable
from time import perf_counter

from bus.contracts.contract import Contract
from bus.messaging.ports.meter import NO_METER, Meter
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
    batches: dict[str, MeasureBatch] = {}

    def report(contract: Contract, started: float, error: BaseException | None) -> None:
        now = perf_counter()
        batch = batches.get(contract.type)
        if batch is None:
            batch = batches[contract.type] = MeasureBatch(meter, contract, clock)
        if error is None:
            batch.succeeded(now - started, now)
        else:
            batch.failed(error, now - started)

    return report


def _ignore(_contract: Contract, _started: float, _error: BaseException | None) -> None:
    """Do nothing, because this process measures nothing."""
