"""A store that reports the duration of its statements to a meter."""

from collections.abc import Awaitable, Callable
from functools import cached_property
from time import perf_counter
from typing import Any, Final, TypeVar, cast

from bus.messaging.ports.job_store import JobStore
from bus.messaging.ports.meter import Meter
from bus.messaging.ports.store import Store
from bus.messaging.store_instruments import STORE_STATEMENT_SECONDS

__all__ = ["measured_store"]

T = TypeVar("T")
JOB_STATEMENTS: Final = frozenset(
    {
        *("record", "claim", "renew", "report", "end", "cancel_requests"),
        *("find", "list", "counts", "cancel", "retry", "prune"),
    }
)
"""Methods of a job store that are measured, by their names. `changed` only waits."""
STORE_STATEMENTS: Final = frozenset({"beat", "pauses", "pause", "resume"})
"""Methods of a store that are measured."""


def measured_store(store: Store, meter: Meter) -> Store:
    """Return a store that reports the duration of each statement of `store`.

    The duration includes the wait for a connection, and the statements that failed. A measurement
    takes about a microsecond.
    """
    return cast("Store", _Measured(store, STORE_STATEMENTS, meter))


class _Measured:
    """An object whose methods with these names are measured. It has all other attributes, too."""

    def __init__(self, inner: object, names: frozenset[str], meter: Meter) -> None:
        self._inner, self._names, self._meter = inner, names, meter

    @cached_property
    def jobs(self) -> JobStore:
        """The durable jobs, with measured statements."""
        inner = cast("Store", self._inner).jobs
        return cast("JobStore", _Measured(inner, JOB_STATEMENTS, self._meter))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in self._names:
            return value
        measured = _measured(value, name, self._meter)
        self.__dict__[name] = measured  # the next access finds it without this method
        return measured


def _measured(
    method: Callable[..., Awaitable[T]], name: str, meter: Meter
) -> Callable[..., Awaitable[T]]:
    labels = (name,)

    async def call(*arguments: Any, **options: Any) -> T:
        began = perf_counter()
        try:
            return await method(*arguments, **options)
        finally:
            meter.observe(STORE_STATEMENT_SECONDS, labels, perf_counter() - began)

    return call
