"""All circuit breakers of one process: those of its calls, and those of its dependencies."""

import time
from collections.abc import Callable, Iterator

from bus.messaging.breaker_info import BreakerInfo
from bus.messaging.resilience.call_policy import BreakerPolicy
from bus.messaging.resilience.circuit_breaker import BreakerKind, CircuitBreaker
from bus.messaging.timers import bound_timer

__all__ = ["Breakers"]


class Breakers:
    """The breakers of one process, by kind and name. The bus owns this object.

    All senders of the bus share it. A breaker exists from the first call of its operation. So there
    are at most as many breakers as contracts and dependencies.
    """

    def __init__(
        self,
        *,
        timer: Callable[[], float],
        clock: Callable[[], float] = time.time,
        on_change: Callable[[BreakerInfo], None] | None = None,
    ) -> None:
        """Create an object without breakers.

        Args:
            timer: Function that returns monotonic seconds.
            clock: Function that returns seconds since the epoch.
            on_change: Function that is called after each change of a breaker's state. It must not
                raise. None: nothing reports the changes.
        """
        self._timer, self._clock = timer, clock
        self._on_change = on_change or _ignore
        self._breakers: dict[tuple[BreakerKind, str], CircuitBreaker] = {}

    def of(self, kind: BreakerKind, name: str, policy: BreakerPolicy) -> CircuitBreaker:
        """Return a breaker. Create it with `policy` if it does not exist."""
        breaker = self._breakers.get((kind, name))
        if breaker is None:
            breaker = self._breakers[kind, name] = CircuitBreaker(
                policy, name, kind, bound_timer(self._timer), self._clock, self._on_change
            )
        return breaker

    def get(self, name: str, kind: BreakerKind | None = None) -> tuple[CircuitBreaker, ...]:
        """Return the breakers with a name: at most one of each kind.

        Args:
            name: Type of an operation, or name of a dependency.
            kind: Kind of the breaker, or None for every kind.
        """
        return tuple(
            breaker for breaker in self if breaker.name == name and kind in {None, breaker.kind}
        )

    def __iter__(self) -> Iterator[CircuitBreaker]:
        return iter([*self._breakers.values()])

    def __len__(self) -> int:
        return len(self._breakers)


def _ignore(_info: BreakerInfo) -> None:
    """Do nothing, because nothing reports the changes."""
