"""What the broker has, by its management API. The tag `management` is enough to read all of it."""

import asyncio
import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from bus.errors import ConfigurationError, Unauthenticated, Unavailable
from bus.messaging.topology.model import Binding, Queue
from bus.operations.management_api import Management, usual_address
from bus.settings import Settings
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout
from bus.transports.rabbitmq.handshake import probe, vhost_of

__all__ = [
    "CONSUMER_TIMEOUT",
    "ActualExchange",
    "ActualQueue",
    "BrokerState",
    "effective_arguments",
    "management_of",
    "policies_for",
    "policy_of",
    "queue_totals",
    "read_broker_state",
]

Setting = str | int
CONSUMER_TIMEOUT = "consumer-timeout"
"""Of policies; milliseconds."""
SMALLER_WINS = frozenset(
    {CONSUMER_TIMEOUT, "delivery-limit", "expires", "max-length", "max-length-bytes", "message-ttl"}
)
"""Where an argument and a policy both say something of these, RabbitMQ takes the smaller; of all else the argument."""
TOTALS = "?disable_stats=true&enable_queue_totals=true"
"""What RabbitMQ has of a queue at hand, which but for its totals is as it is now. With statistics all is some seconds old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualExchange:
    """An exchange as it is."""

    kind: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualQueue:
    """A queue as it is."""

    kind: str
    """`classic`, `quorum` or `stream`."""
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    """What its policy and operator policy say together."""
    messages: int | None = None
    """All that it holds, up to some seconds ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """A virtual host's exchanges, queues and bindings."""

    exchanges: Mapping[str, ActualExchange]
    queues: Mapping[str, ActualQueue]
    bindings: frozenset[Binding]
    default_kind: str = "classic"
    """What a queue becomes that is declared without a type."""
    supports_consumer_timeout: bool = False
    """Whether its consumers of quorum queues say themselves for how long they may hold a message."""
    not_read: tuple[str, ...] = ()
    """What could not be looked at, and why."""


def effective_arguments(queue: ActualQueue) -> dict[str, Setting]:
    """What counts for a queue, of its arguments and policies, by the names that policies have: `delivery-limit`."""
    arguments = {
        name.removeprefix("x-"): value
        for name, value in queue.arguments.items()
        if name.startswith("x-")
    }
    both = {
        name: min(value, queue.policy[name])
        for name, value in arguments.items()
        if name in SMALLER_WINS and name in queue.policy
    }
    return {**queue.policy, **arguments, **both}


async def read_broker_state(settings: Settings) -> BrokerState:
    """Look once.

    Raises as `probe` where AMQP does not answer, `Unavailable` or `Unauthenticated` where the management API does not, and
    `ConfigurationError` where it is another broker's.
    """
    url = settings.address
    server = await probe(url)
    api = management_of(settings)
    try:
        overview = await api.call("GET", "overview")
        if overview.get("cluster_name") != server.cluster:
            raise ConfigurationError(
                f"BUS_URL and the management API on {api.where} are two brokers; set BUS_MANAGEMENT_URL"
            )
        return replace(
            await _read(api, _vhost(url)),
            supports_consumer_timeout=supports_consumer_timeout(
                {"product": server.product, "version": server.version}, "quorum"
            ),
        )
    except Unavailable as error:
        raise Unavailable(f"{error}; BUS_MANAGEMENT_URL says where it is") from error
    except Unauthenticated as error:
        raise Unauthenticated(
            f"{error}; give it the tag 'management', or BUS_MANAGEMENT_URL another user"
        ) from error


async def policies_for(queue: Queue, settings: Settings) -> Mapping[str, Any]:
    """What policies say of a queue, whether or not it exists. Raises `Unavailable` and `Unauthenticated`, as `read`."""
    api, vhost = management_of(settings), _vhost(settings.address)
    policies, operators = [
        await api.call("GET", f"{kind}/{vhost}") for kind in ("policies", "operator-policies")
    ]
    return policy_of(
        queue.name, str(queue.arguments.get("x-queue-type", "classic")), policies, operators
    )


async def queue_totals(settings: Settings) -> dict[str, int]:
    """By queue all messages that it holds: ready, unacked, and on their way to the dead letters; up to 5 s old. Raises as `read`."""
    rows = await management_of(settings).call(
        "GET", f"queues/{_vhost(settings.url.get_secret_value())}{TOTALS}&columns=name,messages"
    )
    return {row["name"]: row.get("messages") or 0 for row in rows}


def management_of(settings: Settings) -> Management:
    """The management API of the settings' broker: where they say, else where it usually is."""
    url = settings.address
    return Management(
        settings.management_url.get_secret_value()
        if settings.management_url
        else usual_address(url),
        url,
    )


def _vhost(url: str) -> str:
    """The virtual host of an AMQP URL, as the management API's paths have it."""
    return quote(vhost_of(url), safe="")


async def _read(api: Management, vhost: str) -> BrokerState:
    kinds = ("exchanges", "queues", "bindings", "policies", "operator-policies")
    lists = await asyncio.gather(
        *(api.call("GET", f"{kind}/{vhost}{TOTALS if kind == 'queues' else ''}") for kind in kinds)
    )
    exchanges, queues, bindings, policies, operators = lists
    return BrokerState(
        exchanges={each["name"]: _exchange(each) for each in exchanges},
        queues={each["name"]: _queue(each, policies, operators) for each in queues},
        bindings=frozenset(_bindings(bindings)),
        default_kind=await _default_kind(api, vhost),
        not_read=tuple(_illegible([*policies, *operators])),
    )


def _exchange(row: Mapping[str, Any]) -> ActualExchange:
    return ActualExchange(
        kind=row["type"],
        durable=row["durable"],
        auto_delete=row["auto_delete"],
        internal=row["internal"],
        arguments=row["arguments"],
    )


def _queue(
    row: Mapping[str, Any],
    policies: Sequence[Mapping[str, Any]],
    operators: Sequence[Mapping[str, Any]],
) -> ActualQueue:
    known = row.get(
        "effective_policy_definition"
    )  # RabbitMQ 4 says it at once, older ones only in their statistics
    return ActualQueue(
        kind=row["type"],
        durable=row["durable"],
        auto_delete=row["auto_delete"],
        exclusive=bool(row.get("exclusive")),
        arguments=row["arguments"],
        policy=known
        if known is not None
        else policy_of(row["name"], row["type"], policies, operators),
        messages=row.get("messages"),
    )


def policy_of(
    name: str,
    kind: str,
    policies: Sequence[Mapping[str, Any]],
    operators: Sequence[Mapping[str, Any]] = (),
) -> Mapping[str, Any]:
    """What policies say of a queue: of each kind the one with the highest priority, and of both kinds' limits the smaller.

    https://www.rabbitmq.com/docs/parameters#policies
    """
    user, operator = (_first(name, kind, rules) for rules in (policies, operators))
    both = {
        key: min(value, user[key])
        for key, value in operator.items()
        if key in SMALLER_WINS and key in user
    }
    return {**user, **operator, **both}


def _first(name: str, kind: str, rules: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    takes = {"all", "queues", f"{kind}_queues", f"{kind}s"}
    fitting = [
        each for each in rules if each["apply-to"] in takes and _matches(each["pattern"], name)
    ]
    best = max(fitting, key=lambda each: int(each["priority"]), default=None)
    return best["definition"] if best else {}


def _matches(pattern: str, name: str) -> bool:
    with contextlib.suppress(re.error):
        return re.search(pattern, name) is not None
    return False


def _illegible(rules: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for each in rules:
        try:
            re.compile(each["pattern"])
        except re.error:
            yield f"the policy {each['name']!r}: its pattern is none of Python's"


def _bindings(rows: Iterable[Mapping[str, Any]]) -> Iterable[Binding]:
    for row in rows:
        if row["source"] and row["destination_type"] == "queue":
            yield Binding(
                exchange=row["source"], queue=row["destination"], routing_key=row["routing_key"]
            )


async def _default_kind(api: Management, vhost: str) -> str:
    """Only administrators may ask; for others it is RabbitMQ's own default."""
    with contextlib.suppress(Unauthenticated, Unavailable):
        known = (await api.call("GET", f"vhosts/{vhost}")).get("default_queue_type")
        return known if known in {"classic", "quorum", "stream"} else "classic"
    return "classic"
