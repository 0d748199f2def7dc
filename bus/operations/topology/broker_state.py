"""The broker's exchanges, queues, bindings and policies, read from its management API.

The broker user needs only the tag `management`.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from bus.errors import ConfigurationError, Unauthenticated, Unavailable
from bus.messaging.broker_addresses import require_urls
from bus.messaging.topology.model import Binding, Queue
from bus.operations.management_api import Fields, Management, usual_address
from bus.operations.topology.policies import find_invalid_patterns, merge_limits, policy_of
from bus.settings import Settings
from bus.transports.rabbitmq.cluster import Cluster
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout
from bus.transports.rabbitmq.handshake import probe, vhost_of

__all__ = [
    "ActualExchange",
    "ActualQueue",
    "BrokerState",
    "effective_arguments",
    "management_of",
    "policies_for",
    "queue_bindings",
    "queue_totals",
    "read_broker_state",
]

Setting = str | int
EXCHANGE_FIELDS: Fields = {
    "name": str,
    "type": str,
    "durable": bool,
    "auto_delete": bool,
    "internal": bool,
    "arguments": dict,
}
QUEUE_FIELDS: Fields = {
    "name": str,
    "type": str,
    "durable": bool,
    "auto_delete": bool,
    "arguments": dict,
    # RabbitMQ 3 writes a policy without settings as an empty list.
    "effective_policy_definition": dict | list | None,
    "messages": int | None,
}
BINDING_FIELDS: Fields = {
    "source": str,
    "destination": str,
    "destination_type": str,
    "routing_key": str,
}
POLICY_FIELDS: Fields = {
    "name": str,
    "pattern": str,
    "apply-to": str,
    "priority": int,
    "definition": dict,
}
TOTALS = "?disable_stats=true&enable_queue_totals=true"
"""Query string that requests the totals of queues. It disables the statistics of queues.

The totals can be some seconds old. All other values are current. If the statistics were
enabled, all values would be some seconds old.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualExchange:
    """An exchange that exists at the broker."""

    kind: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualQueue:
    """A queue that exists at the broker."""

    kind: str
    """`classic`, `quorum` or `stream`."""
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    """Effective policy definition. RabbitMQ merges it from the policy and the operator policy."""
    messages: int | None = None
    """Total number of messages. The value can be some seconds old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """Exchanges, queues and bindings of a virtual host."""

    exchanges: Mapping[str, ActualExchange]
    queues: Mapping[str, ActualQueue]
    bindings: frozenset[Binding]
    default_kind: str = "classic"
    """Type of a queue that is declared without `x-queue-type`."""
    supports_consumer_timeout: bool = False
    """True if a consumer of a quorum queue can set its own consumer timeout."""
    not_read: tuple[str, ...] = ()
    """Objects that could not be checked. Each text contains the reason."""


def effective_arguments(queue: ActualQueue) -> dict[str, Setting]:
    """Return the effective settings of a queue. Merge its arguments and policies.

    The keys have the names of policy settings, such as `delivery-limit`.
    """
    arguments = {
        name.removeprefix("x-"): value
        for name, value in queue.arguments.items()
        if name.startswith("x-")
    }
    return merge_limits(queue.policy, arguments)


async def read_broker_state(settings: Settings) -> BrokerState:
    """Read the state of the virtual host that `settings` names.

    Raises:
        Unavailable: The broker does not answer over AMQP, or the management API does not answer.
        Unauthenticated: The broker or the management API refuses the user.
        ConfigurationError: BUS_URL is invalid, or the management API belongs to another broker.
    """
    url = settings.address
    server = await probe(url)
    api = management_of(settings, cluster=server.cluster)
    try:
        if await api.cluster_name() != server.cluster:
            raise ConfigurationError(
                f"BUS_URL and the management API at {api.where} belong to different brokers. "
                "Set BUS_MANAGEMENT_URL to the API of the broker in BUS_URL."
            )
        return replace(
            await _read(api, _quote_vhost(url)),
            supports_consumer_timeout=supports_consumer_timeout(
                {"product": server.product, "version": server.version}, "quorum"
            ),
        )
    except Unavailable as error:
        raise Unavailable(f"{error}. Set BUS_MANAGEMENT_URL to the address of the API.") from error
    except Unauthenticated as error:
        raise Unauthenticated(
            f"{error}. Give the user the tag 'management', or name another user in "
            "BUS_MANAGEMENT_URL."
        ) from error


async def policies_for(queue: Queue, settings: Settings) -> Mapping[str, Any]:
    """Return the effective policy definition for a queue. The queue does not have to exist.

    Raises:
        Unavailable: The management API does not answer.
        Unauthenticated: The management API refuses the user.
    """
    api, vhost = management_of(settings), _quote_vhost(settings.address)
    policies, operators = [
        await api.read_list(f"{kind}/{vhost}", POLICY_FIELDS)
        for kind in ("policies", "operator-policies")
    ]
    return policy_of(
        queue.name, str(queue.arguments.get("x-queue-type", "classic")), policies, operators
    )


async def queue_totals(settings: Settings) -> dict[str, int]:
    """Return the total number of messages of each queue. The values are up to 5 s old.

    The total includes unacked messages, and messages that the broker is dead-lettering.

    Raises:
        Unavailable: The management API does not answer.
        Unauthenticated: The management API refuses the user.
    """
    vhost = _quote_vhost(settings.address)
    rows = await management_of(settings).read_list(
        f"queues/{vhost}{TOTALS}&columns=name,messages", {"name": str, "messages": int | None}
    )
    return {row["name"]: row.get("messages") or 0 for row in rows}


async def queue_bindings(settings: Settings) -> frozenset[Binding]:
    """Return the current bindings of all queues in the virtual host.

    Raises:
        Unavailable: The management API does not answer.
        Unauthenticated: The management API refuses the user.
    """
    vhost = _quote_vhost(settings.address)
    rows = await management_of(settings).read_list(f"bindings/{vhost}", BINDING_FIELDS)
    return frozenset(_to_bindings(rows))


def management_of(settings: Settings, *, cluster: str | None = None) -> Management:
    """Return a client for the management API at `management_url`, or on the default port.

    Args:
        settings: The settings with the addresses.
        cluster: The name of the broker's cluster. If there are several hosts, the client skips
            hosts of other clusters. None: the cluster to which this process is connected, if any.
    """
    url = settings.address
    return Management(
        settings.management_url.get_secret_value()
        if settings.management_url
        else usual_address(url),
        url,
        cluster=cluster or Cluster.of(require_urls(url)).name,
    )


def _quote_vhost(url: str) -> str:
    """Return the virtual host of an AMQP URL, quoted for a path of the management API."""
    return quote(vhost_of(url), safe="")


async def _read(api: Management, vhost: str) -> BrokerState:
    exchanges, queues, bindings, policies, operators = await asyncio.gather(
        api.read_list(f"exchanges/{vhost}", EXCHANGE_FIELDS),
        api.read_list(f"queues/{vhost}{TOTALS}", QUEUE_FIELDS),
        api.read_list(f"bindings/{vhost}", BINDING_FIELDS),
        api.read_list(f"policies/{vhost}", POLICY_FIELDS),
        api.read_list(f"operator-policies/{vhost}", POLICY_FIELDS),
    )
    return BrokerState(
        exchanges={row["name"]: _to_exchange(row) for row in exchanges},
        queues={row["name"]: _to_queue(row, policies, operators) for row in queues},
        bindings=frozenset(_to_bindings(bindings)),
        default_kind=await _read_default_kind(api, vhost),
        not_read=tuple(find_invalid_patterns([*policies, *operators])),
    )


def _to_exchange(row: Mapping[str, Any]) -> ActualExchange:
    return ActualExchange(
        kind=row["type"],
        durable=row["durable"],
        auto_delete=row["auto_delete"],
        internal=row["internal"],
        arguments=row["arguments"],
    )


def _to_queue(
    row: Mapping[str, Any],
    policies: Sequence[Mapping[str, Any]],
    operators: Sequence[Mapping[str, Any]],
) -> ActualQueue:
    # RabbitMQ 4 always returns this key. Older versions return it only with statistics.
    effective_policy = row.get("effective_policy_definition")
    return ActualQueue(
        kind=row["type"],
        durable=row["durable"],
        auto_delete=row["auto_delete"],
        exclusive=bool(row.get("exclusive")),
        arguments=row["arguments"],
        policy=policy_of(row["name"], row["type"], policies, operators)
        if effective_policy is None
        else (effective_policy if isinstance(effective_policy, dict) else {}),
        messages=row.get("messages"),
    )


def _to_bindings(rows: Iterable[Mapping[str, Any]]) -> Iterable[Binding]:
    for row in rows:
        if row["source"] and row["destination_type"] == "queue":
            yield Binding(
                exchange=row["source"], queue=row["destination"], routing_key=row["routing_key"]
            )


async def _read_default_kind(api: Management, vhost: str) -> str:
    """Return the default queue type of the virtual host.

    Only administrators are allowed to read this type. If the user is not an administrator, return
    RabbitMQ's default, `classic`.
    """
    with contextlib.suppress(Unauthenticated, Unavailable):
        row = await api.read(f"vhosts/{vhost}", {"default_queue_type": str | None})
        kind = row.get("default_queue_type")
        return kind if kind in {"classic", "quorum", "stream"} else "classic"
    return "classic"
