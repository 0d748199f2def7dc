"""Handler timeouts, which must be shorter than the time for which the broker waits for an ack."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bus.errors import ConfigurationError
from bus.messaging.topology.model import Queue
from bus.operations.topology.broker_state import CONSUMER_TIMEOUT
from bus.runtime.requirements import topology_of
from bus.runtime.router import Endpoint, Router
from bus.settings import Settings

__all__ = ["check_handler_timeouts", "consumer_timeout_for"]

PoliciesOf = Callable[[Queue], Awaitable[Mapping[str, Any]]]
"""A function that reads the values that the broker's policies set for a queue."""
SETTLING_SECONDS = 90.0
"""Seconds that settlement can take after a handler has ended.

The copy for a retry or dead letter is sent again for a minute. Then the confirm of the last copy
may still be awaited.
"""


def consumer_timeout_for(endpoint: Endpoint, router: Router, *, least: float) -> float | None:
    """Return the seconds for which a consumer may hold a message, or None without a limit.

    A poison candidate first waits until every running handler has ended, and is then processed
    alone (ADR 0017). So the time includes the longest timeout of the router's handlers.

    Args:
        endpoint: The endpoint of the consumer.
        router: The router of the endpoint.
        least: The minimum, in seconds.
    """
    if endpoint.timeout is None:
        return None
    longest = max(other.timeout or 0.0 for other in router.endpoints.values())
    return max(least, longest + endpoint.timeout + SETTLING_SECONDS)


async def check_handler_timeouts(
    router: Router, settings: Settings, *, supported: Callable[[Queue], bool], policies: PoliciesOf
) -> None:
    """Check that no handler may run for longer than the broker waits for its ack.

    Otherwise the broker would give the message to another consumer while the handler runs. The
    broker waits for the time that the consumer sets, if that is `supported`. If it is not, the
    value of a policy applies, and without a policy the setting `consumer_timeout`.

    Args:
        router: The router to check.
        settings: The settings of the service.
        supported: Returns True if the broker supports the consumer's own timeout for a queue.
        policies: Returns the values of the broker's policies for a queue.

    Raises:
        ConfigurationError: The timeout of a handler is longer than the broker waits.
    """
    for name, (queue, _) in topology_of(router, settings).items():
        endpoint = router.endpoints[name]
        if (
            endpoint.timeout is None
            or endpoint.timeout <= settings.consumer_timeout
            or supported(queue)
        ):
            continue
        policy_ms = (await policies(queue)).get(CONSUMER_TIMEOUT)
        limit = policy_ms / 1000 if isinstance(policy_ms, int) else settings.consumer_timeout
        if endpoint.timeout > limit:
            raise ConfigurationError(
                f"{endpoint.contract.type} may take {endpoint.timeout:g} s, but the broker "
                f"delivers it again after {limit:g} s. Shorten the handler's timeout, or raise "
                "RabbitMQ's consumer_timeout (ms) and BUS_CONSUMER_TIMEOUT (s). RabbitMQ 4.3 "
                "requires neither."
            )
