"""The state of one endpoint in this process."""

from dataclasses import dataclass, field

from bus.messaging.resilience.adaptive_limit import GradientLimit
from bus.messaging.timers import loop_time
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.runtime.dependency_gate import DependencyGate
from bus.runtime.endpoint import Endpoint
from bus.runtime.endpoint_measures import EndpointMeasures
from bus.runtime.in_flight import InFlight
from bus.runtime.poison_isolation import CandidateQueue, SerialRunner
from bus.runtime.service_runtime import ServiceRuntime
from bus.runtime.slots import Slots
from bus.security.message_security import Guard

__all__ = ["EndpointState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """An endpoint, with the objects that its inbound stages share."""

    endpoint: Endpoint
    spec: ConsumerSpec
    runtime: ServiceRuntime
    guard: Guard
    candidates: CandidateQueue
    """The poison candidates of this process, which `PoisonIsolation` processes alone."""
    serial: SerialRunner = field(default_factory=SerialRunner)
    """The runner for redeliveries from a queue without a delivery count."""
    slots: Slots = field(init=False)
    adaptive: GradientLimit | None = field(init=False)
    """The adaptive limit of `slots`. None if the limit is fixed."""
    in_flight: InFlight = field(init=False)
    measures: EndpointMeasures | None = field(init=False)
    """None if this process measures nothing."""
    dependency: DependencyGate | None = field(init=False)
    """The gate of the dependency that the handler names. None if it names none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", Slots(self.endpoint.concurrency))
        object.__setattr__(self, "adaptive", self._adaptive_limit())
        object.__setattr__(self, "in_flight", InFlight(self.guard))
        measures = EndpointMeasures(self.endpoint, self.runtime)
        object.__setattr__(self, "measures", measures if self.runtime.is_measured else None)
        dependency = self.endpoint.policies.dependency
        gate = None if dependency is None else self.runtime.dependencies.of(dependency)
        object.__setattr__(self, "dependency", gate)

    def _adaptive_limit(self) -> GradientLimit | None:
        bounds = self.endpoint.adaptive
        if bounds is None:
            return None
        prefetch = None if self.runs_at_most_once else self.spec.prefetch
        return GradientLimit(bounds, timer=loop_time, prefetch=prefetch)

    @property
    def runs_at_most_once(self) -> bool:
        """True if the contract is a request that is not idempotent.

        Such a request is acked before its handler starts, because it must not run twice.
        """
        contract = self.endpoint.contract
        return contract.kind == "request" and not contract.idempotent

    @property
    def tracks_delivery_count(self) -> bool:
        """True if the broker counts lost deliveries, and the endpoint uses the count."""
        is_quorum = self.spec.queue.arguments.get("x-queue-type") == "quorum"
        return is_quorum and not self.runs_at_most_once

    @property
    def delivery_limit(self) -> int:
        """The number of lost deliveries after which a message is dead-lettered."""
        limit = self.runtime.settings.delivery_limit
        return min(limit, int(self.spec.queue.arguments.get("x-delivery-limit", limit)))
