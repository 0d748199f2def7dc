"""The measurements of the messages that one client sends."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Final

from bus.contracts.contract import Contract
from bus.messaging.instruments import SEND_SECONDS, SENT
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.ports.meter import NO_METER, Labels, Meter
from bus.runtime.measure_batch import MeasureBatch

__all__ = ["SendMeter", "send_meter"]


SendMeter = Callable[[Contract], AbstractContextManager[None, bool | None]]
"""A function that returns the context manager in which a client sends a message of a contract.

It measures the block, and reports the error that ends it.
"""


def send_meter(meter: Meter, clock: Callable[[], float]) -> SendMeter:
    """Return the function with which a client measures the messages that it sends.

    The client uses it around its whole stack. So the outcome is the error that the caller receives,
    also if the reply did not match its contract. The time includes all attempts.
    """
    return _not_measured if meter is NO_METER else partial(_Sending, _SendMeasures(meter, clock))


_NOTHING: Final = nullcontext()


def _not_measured(_contract: Contract) -> AbstractContextManager[None, bool | None]:
    return _NOTHING


class _SendMeasures:
    """The labels of each contract that a client sends."""

    def __init__(self, meter: Meter, clock: Callable[[], float]) -> None:
        self.meter = meter
        self.clock = clock
        self.families: dict[str, _Family] = {}

    def add(self, contract: Contract) -> "_Family":
        family = self.families[contract.type] = _Family(self, contract)
        return family


class _Family:
    """The labels of one contract."""

    __slots__ = ("add", "clock", "failed", "succeeded")

    def __init__(self, measures: _SendMeasures, contract: Contract) -> None:
        labels: Labels = (contract.name, str(contract.version), contract.kind)
        self.clock = measures.clock
        # The method keeps the batch alive.
        self.add = MeasureBatch(measures.meter, SENT, (SEND_SECONDS,), labels).add
        self.succeeded: Labels = (*labels, OK)
        self.failed = labels


class _Sending:
    """One message that is being sent."""

    __slots__ = ("_family", "_started")

    def __init__(self, measures: _SendMeasures, contract: Contract) -> None:
        self._family = measures.families.get(contract.type) or measures.add(contract)
        self._started = perf_counter()

    def __enter__(self) -> None:
        """Do nothing, because the time begins with the object."""

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        seconds, family = perf_counter() - self._started, self._family
        labels = family.succeeded if error is None else (*family.failed, outcome_of(error))
        family.add(labels, seconds, family.clock())
