"""The destinations of one process: the state of the policies for each operation that it calls."""

from collections.abc import Callable, Iterator, Mapping

from bus.messaging.ports.meter import NO_METER, Labels, Meter
from bus.messaging.resilience.breakers import Breakers
from bus.messaging.resilience.call_policy import CallPolicy
from bus.messaging.resilience.circuit_breaker import CircuitBreaker
from bus.messaging.topology.names import service_of

__all__ = ["Destination", "Destinations"]


class Destination:
    """One operation that this process calls, with the state of its policies.

    Bounds hold for this process only.
    """

    def __init__(self, type_: str, policy: CallPolicy, owner: "Destinations") -> None:
        """Create the state of one operation.

        Args:
            type_: Type of the requests, for example `billing.quote.v1`.
            policy: The policies of the called service.
            owner: The destinations of the process, which have its timer and its meter.
        """
        self.type = type_
        self.policy = policy
        self.timer = owner.timer
        self.meter = owner.meter
        name, _, version = type_.rpartition(".v")
        self.labels: Labels = (name, version)
        """Values of the labels `operation` and `version`."""
        self.breaker: CircuitBreaker | None = (
            None if policy.breaker is None else owner.breakers.of("call", type_, policy.breaker)
        )
        """None if the service has no circuit breaker."""

    @property
    def service(self) -> str:
        """The called service."""
        return service_of(self.type)


class Destinations:
    """All destinations of one process. The bus owns this object."""

    def __init__(
        self,
        policies: Mapping[str, CallPolicy],
        default: CallPolicy,
        *,
        timer: Callable[[], float],
        meter: Meter = NO_METER,
        breakers: Breakers | None = None,
    ) -> None:
        """Create an object without destinations.

        Args:
            policies: Policies by the name of the called service.
            default: Policy of a service that has none.
            timer: Function that returns monotonic seconds.
            meter: Meter to which the policies report.
            breakers: The circuit breakers of the process. None: nothing shares or reports them.
        """
        self._policies, self._default = policies, default
        self._by_type: dict[str, Destination] = {}
        self.timer = timer
        self.meter = meter
        self.breakers = Breakers(timer=timer) if breakers is None else breakers

    def of(self, type_: str) -> Destination:
        """Return the destination of a type. Create it at the first call."""
        destination = self._by_type.get(type_)
        if destination is None:
            policy = self._policies.get(service_of(type_), self._default)
            destination = self._by_type[type_] = Destination(type_, policy, self)
        return destination

    def __iter__(self) -> Iterator[Destination]:
        return iter([*self._by_type.values()])
