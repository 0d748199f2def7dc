"""For how long the broker waits for an ack, and how long a handler may take: the second has to fit into the first."""

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
SETTLING_SECONDS = 90.0
"""Seconds for what follows a handler: its retry's or dead letter's copy, which is sent again for a minute, and the last one's confirm."""


def consumer_timeout_for(endpoint: Endpoint, router: Router, *, least: float) -> float | None:
    """Seconds for which a message may be held here; None where its handler has no limit. Not less than `least`.

    What may have killed its process waits in hand for all that runs beside it, and is then run alone (ADR 0017).
    """
    if endpoint.timeout is None:
        return None
    longest = max(each.timeout or 0.0 for each in router.endpoints.values())
    return max(least, longest + endpoint.timeout + SETTLING_SECONDS)


async def check_handler_timeouts(
    router: Router, settings: Settings, *, supported: Callable[[Queue], bool], policies: PoliciesOf
) -> None:
    """Refuse what may run for longer than the broker waits for its ack: it would be taken away and run elsewhere meanwhile.

    The broker waits as long as the consumer says, where that is `heeded`; else as a policy says; else for the setting `consumer_timeout`.
    """
    for name, (queue, _) in topology_of(router, settings).items():
        endpoint = router.endpoints[name]
        if (
            endpoint.timeout is None
            or endpoint.timeout <= settings.consumer_timeout
            or supported(queue)
        ):
            continue
        said = (await policies(queue)).get(CONSUMER_TIMEOUT)
        waits = said / 1000 if isinstance(said, int) else settings.consumer_timeout
        if endpoint.timeout > waits:
            raise ConfigurationError(
                f"{endpoint.contract.type} may take {endpoint.timeout:g} s, and the broker takes it back after {waits:g} s; shorten its "
                "handler's timeout, or raise RabbitMQ's consumer_timeout (ms) and BUS_CONSUMER_TIMEOUT (s). RabbitMQ 4.3 needs neither"
            )
