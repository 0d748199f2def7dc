"""Checks of handler timeouts, which must be shorter than the broker's consumer timeout."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bus.errors import ConfigurationError
from bus.messaging.topology.model import Queue
from bus.operations.topology.policies import CONSUMER_TIMEOUT
from bus.runtime.endpoint import Endpoint
from bus.runtime.requirements import topology_of
from bus.runtime.router import Router
from bus.settings import Settings

__all__ = ["check_handler_timeouts", "consumer_timeout_for", "hold_seconds_for"]

STORE_ADVICE = " Or set BUS_STORE: with a durable store, a job may take as long as it needs."
PoliciesOf = Callable[[Queue], Awaitable[Mapping[str, Any]]]
"""A function that returns the arguments that the broker's policies set for a queue."""
SETTLING_SECONDS = 90.0
"""The longest time from the end of a handler to the ack of its message, in seconds.

The service tries for up to a minute to send the retry copy or dead letter. The last try can start
at the end of this minute. The service then waits for the confirm of this try.
"""


def consumer_timeout_for(endpoint: Endpoint, router: Router, *, least: float) -> float | None:
    """Return the consumer timeout that a consumer requests from the broker, in seconds.

    A poison candidate first waits until every running handler has ended, and is then processed
    alone (ADR 0017). So the consumer timeout includes the longest timeout of the router's handlers.
    While a dependency is down, a message is held for up to half of `least` before all this.

    Args:
        endpoint: The endpoint of the consumer.
        router: The router of the endpoint.
        least: The smallest value to return, in seconds.

    Returns:
        The consumer timeout, or None if the endpoint has no handler timeout.
    """
    if endpoint.timeout is None:
        return None
    longest = max(other.timeout or 0.0 for other in router.endpoints.values())
    held = 0.0 if endpoint.dependency_tier is None else least / 2
    return max(least, held + longest + endpoint.timeout + SETTLING_SECONDS)


def hold_seconds_for(endpoint: Endpoint, consumer_timeout: float, *, is_requested: bool) -> float:
    """Return the maximum seconds that a process holds a message while a dependency is down.

    The limit is half of the consumer timeout. If the consumer cannot request a longer timeout, the
    rest must be long enough for the handler. A message is held for at least the probe interval.
    Otherwise a broker with a short timeout would deliver the messages again and again.

    Args:
        endpoint: The endpoint, which names a dependency.
        consumer_timeout: The setting `consumer_timeout`, in seconds.
        is_requested: True if the broker applies the timeout that the consumer requests.
    """
    half = consumer_timeout / 2
    dependency = endpoint.policies.dependency
    if is_requested or endpoint.timeout is None or dependency is None:
        return half
    rest = consumer_timeout - endpoint.timeout - SETTLING_SECONDS
    return max(min(half, rest), min(half, dependency.probe_interval))


async def check_handler_timeouts(
    router: Router,
    settings: Settings,
    *,
    supported: Callable[[Queue], bool],
    policies: PoliciesOf,
    has_store: bool = False,
) -> None:
    """Check that each handler's timeout is not longer than the broker's consumer timeout.

    If the handler's timeout is longer, the broker delivers the message to another consumer while
    the handler runs. If the broker supports a timeout for each consumer, the consumer requests a
    timeout that is long enough. If the broker does not support this timeout, the consumer timeout
    is the value of the queue's policy. If the queue has no such policy, the setting
    `consumer_timeout` is the limit.

    A service with a store acks a job before its handler starts, so the handler may take longer.

    Args:
        router: The router to check.
        settings: The settings of the service.
        supported: A function that returns True if the broker applies the timeout that a consumer
            requests for a queue.
        policies: A function that returns the arguments that the broker's policies set for a queue.
        has_store: True if the service has a durable store.

    Raises:
        ConfigurationError: The timeout of a handler is longer than the consumer timeout.
    """
    for name, (queue, _) in topology_of(router, settings).items():
        endpoint = router.endpoints[name]
        if (
            endpoint.timeout is None
            or (has_store and endpoint.contract.kind == "job")
            or endpoint.timeout <= settings.consumer_timeout
            or supported(queue)
        ):
            continue
        policy_ms = (await policies(queue)).get(CONSUMER_TIMEOUT)
        limit = policy_ms / 1000 if isinstance(policy_ms, int) else settings.consumer_timeout
        if endpoint.timeout > limit:
            raise ConfigurationError(
                f"the handler of {endpoint.contract.type} may take {endpoint.timeout:g} s, but the "
                f"broker delivers its message again after {limit:g} s. Shorten the handler's "
                "timeout, raise RabbitMQ's consumer_timeout (ms) and BUS_CONSUMER_TIMEOUT (s), or "
                "upgrade to RabbitMQ 4.3."
                f"{STORE_ADVICE if endpoint.contract.kind == 'job' else ''}"
            )
