"""The bindings of a tap that cannot change the fate of a message.

A sender of requests and jobs receives an error if no queue takes the message (`mandatory`). A
queue of a tap would take it, too: the sender of a job would then receive a confirm for a message
that no service ever handles. So a tap is bound to these exchanges only by the keys of queues that
exist. Events are not mandatory, so their tap can use a pattern (ADR 0036).
"""

from collections.abc import Collection, Mapping
from urllib.parse import quote

from bus.contracts.contract import Kind
from bus.messaging.topology.names import EVENTS, JOBS, REQUESTS, parse_queue_name
from bus.messaging.topology.topic_pattern import topic_matches
from bus.operations.management_api import Management, usual_address
from bus.settings import Settings
from bus.transports.rabbitmq.handshake import vhost_of

__all__ = ["EXCHANGES", "GUARDED", "Key", "management_of", "read_served_keys"]

Key = tuple[str, str]
"""(exchange, routing key)."""
EXCHANGES: Mapping[Kind, str] = {"request": REQUESTS, "job": JOBS, "event": EVENTS}
GUARDED: Mapping[Kind, str] = {"request": REQUESTS, "job": JOBS}
"""Exchanges of messages that are mandatory."""
TIMEOUT_SECONDS = 3.0


def management_of(settings: Settings) -> Management:
    """Return the management API of the broker in the settings."""
    secret = settings.management_url
    url = secret.get_secret_value() if secret else usual_address(settings.address)
    return Management(url, settings.address, timeout=TIMEOUT_SECONDS)


async def read_served_keys(
    api: Management, settings: Settings, kinds: Collection[Kind], pattern: str
) -> frozenset[Key]:
    """Return the keys of requests and jobs for which a queue of a service is bound now.

    Args:
        api: The management API.
        settings: The settings with the virtual host.
        kinds: Kinds of messages to tap.
        pattern: Topic pattern that the keys must match.

    Raises:
        Unavailable: The management API does not answer.
        Unauthenticated: The management API refused the user or the password.
    """
    vhost = quote(vhost_of(settings.address), safe="")
    keys: set[Key] = set()
    for exchange in (GUARDED[kind] for kind in kinds if kind in GUARDED):
        path = f"exchanges/{vhost}/{exchange}/bindings/source"
        fields = {"destination": str, "destination_type": str, "routing_key": str}
        for row in await api.read_list(path, fields):
            queue, key = parse_queue_name(row["destination"]), row["routing_key"]
            if row["destination_type"] == "queue" and queue and topic_matches(pattern, key):
                keys.add((exchange, key))
    return frozenset(keys)
