"""The endpoint: a handler with its contract, its queue and its limits."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from bus.contracts.contract import Contract
from bus.contracts.retry_policy import RetryPolicy
from bus.messaging.resilience.adaptive_limit import AdaptiveLimit
from bus.messaging.resilience.dependency import Dependency
from bus.messaging.resilience.rate_limit import RateLimit
from bus.messaging.settlement import distinct_delays
from bus.messaging.topology.declarations import event_topology, job_topology, request_topology
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import longest_tier_within, retry_delay_for
from bus.security.keyring import MIN_REFRESH_SECONDS

__all__ = ["NO_POLICIES", "Endpoint", "HandlerPolicies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerPolicies:
    """The policies that protect a handler, and the systems that it needs."""

    dependency: Dependency | None = None
    """The dependency without which the handler cannot succeed."""
    rate: RateLimit | None = None
    """The rate limit for each calling service."""


NO_POLICIES = HandlerPolicies()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A handler with its contract, its queue and its limits."""

    contract: Contract
    function: Callable[..., Awaitable[Any]] = field(repr=False)
    """The handler, or a function that calls it with its dependencies."""
    wants_context: bool
    """True if `function` takes the context."""
    queue: str
    """The name of the queue from which the handler's messages come."""
    concurrency: int
    """The maximum number of messages that this process handles at the same time.

    If the limit is adaptive, this is the first limit.
    """
    retry: RetryPolicy
    timeout: float | None = None
    """Seconds for one attempt. None for a request, because its deadline is the limit."""
    adaptive: AdaptiveLimit | None = None
    """The bounds of the adaptive concurrency limit. None if the limit is fixed."""
    subscription: str | None = None
    """The name of an event's subscription, or None if the subscription has no name."""
    policies: HandlerPolicies = NO_POLICIES
    is_transactional: bool = False
    """True if the handler writes in a transaction of the store, which also records the message."""
    is_internal: bool = False
    """True if the bus itself handles the messages, and not a handler of the user."""

    @property
    def dependency_tier(self) -> str | None:
        """The retry tier in which messages wait for the dependency. None for a request."""
        dependency = self.policies.dependency
        if dependency is None or self.contract.kind == "request":
            return None
        return longest_tier_within(dependency.probe_interval)

    def tiers(self) -> tuple[str, ...]:
        """Return the names of the retry tiers that the endpoint uses.

        The retry policy requires a tier for each of its delays. Events and jobs also use the tier
        in which a message waits if its signing key is unknown. Another tier is for messages that
        wait for a dependency.
        """
        key_wait = () if self.contract.kind == "request" else (MIN_REFRESH_SECONDS,)
        delays = (*distinct_delays(self.retry), *key_wait)
        tiers = [retry_delay_for(delay) for delay in delays]
        if (tier := self.dependency_tier) is not None:
            tiers.append(tier)
        return tuple(dict.fromkeys(tiers))

    def topology(
        self, service: str, *, quorum_requests: bool = False, lasting_requests: bool = False
    ) -> tuple[Queue, Topology]:
        """Return the queue of the endpoint, and the topology that the queue requires.

        Args:
            service: The name of the service that serves the endpoint.
            quorum_requests: True if the queues of requests are quorum queues.
            lasting_requests: True if the broker keeps the queues of requests that have no consumer.
        """
        contract, tiers = self.contract, self.tiers()
        if contract.kind == "request":
            topology = request_topology(contract, quorum=quorum_requests, lasting=lasting_requests)
        elif contract.kind == "job":
            topology = job_topology(contract, tiers=tiers)
        else:
            topology = event_topology(service, contract, self.subscription, tiers=tiers)
        return next(queue for queue in topology.queues if queue.name == self.queue), topology
