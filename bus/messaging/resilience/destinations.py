"""The destinations of one process: the state of the policies for each operation that it calls."""

import time
from collections.abc import Callable, Mapping

from bus.messaging.instruments import (
    BULKHEAD_IN_FLIGHT,
    BULKHEAD_WAITING,
    RETRY_BUDGET_TOKENS,
)
from bus.messaging.ports.meter import NO_METER, Labels, Meter
from bus.messaging.resilience.breakers import Breakers
from bus.messaging.resilience.bulkhead import Bulkhead
from bus.messaging.resilience.call_policy import CallPolicy
from bus.messaging.resilience.circuit_breaker import CircuitBreaker
from bus.messaging.resilience.retry_budget import RetryBudget
from bus.messaging.timers import bound_timer
from bus.messaging.topology.names import service_of

__all__ = ["Destination", "Destinations"]


class Destination:
    """One operation that this process calls, with the state of its policies.

    Bounds hold for this process only.
    """

    def __init__(
        self,
        type_: str,
        policy: CallPolicy,
        owner: "Destinations",
        *,
        budget: RetryBudget | None = None,
        bulkhead: Bulkhead | None = None,
    ) -> None:
        """Create the state of one operation.

        Args:
            type_: Type of the requests, for example `billing.quote.v1`.
            policy: The policies of the called service.
            owner: The destinations of the process, which have its clocks, meter and breakers.
            budget: The retry budget of the called service. None: retries are not bounded.
            bulkhead: The permits of the called service. None: requests are not bounded.
        """
        self.type = type_
        self.policy = policy
        self.budget = budget
        self.bulkhead = bulkhead
        self.clock = owner.clock
        """Function that returns seconds since the epoch."""
        self.timer = owner.timer
        """Function that returns monotonic seconds."""
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
        clock: Callable[[], float] = time.time,
        meter: Meter = NO_METER,
        breakers: Breakers | None = None,
    ) -> None:
        """Create an object without destinations.

        Args:
            policies: Policies by the name of the called service.
            default: Policy of a service that has none.
            timer: Function that returns monotonic seconds.
            clock: Function that returns seconds since the epoch.
            meter: Meter to which the policies report.
            breakers: The circuit breakers of the process. None: nothing shares or reports them.
        """
        self._policies, self._default = policies, default
        self._by_type: dict[str, Destination] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._bulkheads: dict[str, Bulkhead] = {}
        self.timer = timer
        self.clock = clock
        self.meter = meter
        self.breakers = Breakers(timer=timer, clock=clock) if breakers is None else breakers
        self.need_send_times = any(map(_needs_send_time, (default, *policies.values())))
        """True if a policy needs the time at which a request was sent."""
        meter.report_before_read(self)

    def of(self, type_: str) -> Destination:
        """Return the destination of a type. Create it at the first call."""
        destination = self._by_type.get(type_)
        if destination is None:
            service = service_of(type_)
            policy = self._policies.get(service, self._default)
            destination = self._by_type[type_] = Destination(
                type_,
                policy,
                self,
                budget=self._budget_of(service, policy),
                bulkhead=self._bulkhead_of(service, policy),
            )
        return destination

    def report(self) -> None:
        """Set the gauges. The meter calls this method before it is read."""
        for service, budget in [*self._budgets.items()]:
            self.meter.set(RETRY_BUDGET_TOKENS, (service,), budget.tokens)
        for service, bulkhead in [*self._bulkheads.items()]:
            self.meter.set(BULKHEAD_IN_FLIGHT, (service,), bulkhead.in_flight)
            self.meter.set(BULKHEAD_WAITING, (service,), bulkhead.waiting)

    def _budget_of(self, service: str, policy: CallPolicy) -> RetryBudget | None:
        if policy.retry_budget is None:
            return None
        budget = self._budgets.get(service)
        if budget is None:
            budget = self._budgets[service] = RetryBudget(
                policy.retry_budget, bound_timer(self.timer)
            )
        return budget

    def _bulkhead_of(self, service: str, policy: CallPolicy) -> Bulkhead | None:
        if policy.max_in_flight is None:
            return None
        bulkhead = self._bulkheads.get(service)
        if bulkhead is None:
            bulkhead = Bulkhead(policy.max_in_flight, policy.max_waiting)
            self._bulkheads[service] = bulkhead
        return bulkhead


def _needs_send_time(policy: CallPolicy) -> bool:
    """Return True if the policy sends second copies, or has a limit for slow calls."""
    slow_call = None if policy.breaker is None else policy.breaker.slow_call
    return policy.hedge_after is not None or slow_call is not None
