"""An inspection of the bus's queues: ready messages, unacked messages and consumers.

An inspection changes nothing. It merges two sources. AMQP's passive declaration returns the current
numbers of ready messages and consumers. The management API returns the names, the numbers of
unacked messages and all other values. RabbitMQ counts them every 5 s.

The numbers of ready and unacked messages of a queue are always of one moment. Otherwise a message
that a consumer takes between the two reads would be counted twice, or not at all.

An inspection never fetches messages. A fetched message is marked as redelivered, and the fetch
counts towards a quorum queue's delivery limit.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import quote

from bus.errors import ConfigurationError, Unauthenticated, Unavailable
from bus.messaging.topology.model import QueueRole
from bus.messaging.topology.names import SOURCES, QueueName, parse_queue_name
from bus.operations.management_api import Management, usual_address
from bus.settings import Settings
from bus.transports.rabbitmq.handshake import BrokerInfo, probe, vhost_of
from bus.transports.rabbitmq.queue_depth import QueueDepth, depths

__all__ = ["BrokerAddress", "QueueFilter", "QueueReport", "QueueStatus", "inspect_queues"]

TIMEOUT_SECONDS = 3.0
"""Maximum seconds for one management API call.

If the API does not answer, the report has fewer values.
"""
COLUMNS = (
    "columns=name,type,state,messages_ready,messages_unacknowledged,consumers,"
    "head_message_timestamp"
)
TOTALS = "disable_stats=true&enable_queue_totals=true"
HEALTHY = {"running", "flow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """The state of a queue. A value that is not known is None."""

    name: str
    service: str
    role: QueueRole
    work_queue: str | None = None
    """Work queue of this dead-letter queue. None if this is not a dead-letter queue."""
    type: str | None = None
    """`classic` or `quorum`."""
    exists: bool = True
    ready: int | None = None
    unacked: int | None = None
    is_sampled: bool = False
    """True if `ready` and `unacked` are RabbitMQ's last count, which is up to 5 s old.

    False if they are current, or unknown.
    """
    consumers: int | None = None
    oldest: float | None = None
    """Seconds since the message at the head of the queue was first sent.

    If `is_sampled`, the message was at the head up to 5 s ago, and may have left the queue. The
    true age of the oldest message is then up to 6 s lower, because the time has whole seconds.
    None if the queue is not a classic queue. Only classic queues report this time.
    """
    is_unbound: bool = False
    """True if the queue has consumers, but no binding through which services send messages to it.

    False also if the bindings are unknown.
    """
    last_error: str | None = None
    """Error that prevents the use of the queue, such as a node that is down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """The queues to select: the queues in `names`, the queues of a service, or all queues."""

    names: tuple[str, ...] = ()
    service: str | None = None
    guesses: tuple[str, ...] = ()
    """Names of queues to search for if the management API cannot list the queues.

    If a queue with one of these names exists, the queue is selected.
    """

    def takes(self, name: QueueName) -> bool:
        """Return True if the filter selects the queue `name`."""
        if self.names:
            return name.name in self.names or (
                name.role == "replies" and name.service == self.service
            )
        return self.service in {None, name.service}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The addresses of a broker.

    If `management_url` is None, the bus tries the management API's default port.
    """

    url: str = field(repr=False)
    management_url: str | None = field(default=None, repr=False)
    renew: bool = True
    """True if an inspection is allowed to restart the expiry of request queues.

    If the management API does not answer, the inspection must declare these queues passively. A
    passive declaration restarts the expiry.
    """

    @classmethod
    def of(cls, settings: Settings, *, renew: bool) -> Self:
        """Return the addresses of the broker in the settings."""
        secret = settings.management_url
        return cls(
            url=settings.address,
            management_url=secret.get_secret_value() if secret else None,
            renew=renew,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """The result of an inspection."""

    server: BrokerInfo
    queues: tuple[QueueStatus, ...]
    without_management: str | None = None
    """Reason why the management API's values are missing. None if the values are complete."""
    at: float
    """Time of the inspection, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementListing:
    """The management API's values for each queue, or the reason why the values are missing."""

    rows: Mapping[str, Mapping[str, Any]] | None = None
    why: str | None = None


async def inspect_queues(
    broker: BrokerAddress, selection: QueueFilter, *, clock: Callable[[], float] = time.time
) -> QueueReport:
    """Inspect the selected queues once.

    Args:
        broker: The broker's addresses.
        selection: The queues to inspect.
        clock: Returns seconds since the epoch.

    Raises:
        Unavailable: The broker does not answer over AMQP. Or `selection` names no queues, and the
            management API cannot list them.
        Unauthenticated: The broker refused the user or the password.
        ConfigurationError: An address is invalid, the broker refused the virtual host, or
            `management_url` belongs to another broker.
    """
    server = await probe(broker.url)
    listing = await fetch_listing(broker, server)
    names, at = select_names(selection, listing), clock()
    queue_depths = await depths(
        broker.url, [name.name for name in names if may_declare_passively(name, broker, listing)]
    )
    states = [merge_depths(name, queue_depths.get(name.name), listing, now=at) for name in names]
    if any(map(takes_messages, states)) and listing.rows is not None:
        # A worker binds its queue before it consumes. So the bindings are read after the consumers.
        states = mark_unbound(states, await fetch_bound(broker))
    expected = {*selection.names}
    return QueueReport(
        server=server,
        queues=tuple(state for state in states if state.exists or state.name in expected),
        without_management=listing.why,
        at=at,
    )


async def fetch_listing(broker: BrokerAddress, server: BrokerInfo) -> ManagementListing:
    """Fetch the values of all queues in the virtual host from the management API.

    The values are used only if the API belongs to the broker `server`.
    """
    try:
        api = Management(
            broker.management_url or usual_address(broker.url),
            broker.url,
            timeout=TIMEOUT_SECONDS,
            cluster=server.cluster,
        )
        if await api.cluster_name() != server.cluster:
            return wrong_broker(broker, api)
        return ManagementListing(rows=await rows(api, vhost_of(broker.url)))
    except (Unavailable, Unauthenticated) as error:
        return ManagementListing(why=str(error))


def wrong_broker(broker: BrokerAddress, api: Management) -> ManagementListing:
    """Return an empty listing, because the API belongs to another broker.

    If `management_url` is not set, the bus tries the default port. Another node on the same machine
    can use the default port.

    Raises:
        ConfigurationError: `management_url` is set, so the setting is wrong.
    """
    if broker.management_url:
        raise ConfigurationError(
            f"BUS_MANAGEMENT_URL ({api.where}) and BUS_URL belong to different brokers. "
            "Set BUS_MANAGEMENT_URL to the API of the broker in BUS_URL."
        )
    return ManagementListing(why=f"the management API on {api.where} belongs to another broker")


async def fetch_bound(broker: BrokerAddress) -> Collection[str] | None:
    """Return the queues that are bound to an exchange for messages of services.

    Return None if the management API does not answer.
    """
    api = Management(
        broker.management_url or usual_address(broker.url), broker.url, timeout=TIMEOUT_SECONDS
    )
    vhost = quote(vhost_of(broker.url), safe="")
    try:
        bindings = await api.call("GET", f"bindings/{vhost}")
    except (Unavailable, Unauthenticated):
        return None
    return {each["destination"] for each in bindings if each["source"] in SOURCES.values()}


def takes_messages(queue: QueueStatus) -> bool:
    """Return True if consumers of the queue wait for messages of services."""
    return queue.role in SOURCES and bool(queue.consumers)


def mark_unbound(states: Iterable[QueueStatus], bound: Collection[str] | None) -> list[QueueStatus]:
    """Return the states, in which the queues with consumers and without a binding are marked."""
    return [
        replace(state, is_unbound=True)
        if bound is not None and takes_messages(state) and state.name not in bound
        else state
        for state in states
    ]


async def rows(api: Management, vhost: str) -> dict[str, Mapping[str, Any]]:
    """Return the values of each queue. Merge the totals and the statistics.

    If the totals and the statistics contain the same key, use the value in the totals. RabbitMQ
    updates the totals earlier.
    """
    path = f"queues/{quote(vhost, safe='')}?{COLUMNS}"
    statistics, totals = await asyncio.gather(
        api.read_list(path, {"name": str}), api.read_list(f"{path}&{TOTALS}", {"name": str})
    )
    by_name = {row["name"]: row for row in statistics}
    return {row["name"]: {**by_name.get(row["name"], {}), **row} for row in totals}


def select_names(selection: QueueFilter, listing: ManagementListing) -> list[QueueName]:
    """Return the sorted names of the selected queues.

    Raises:
        Unavailable: `selection` names no queues, and the management API cannot list them.
    """
    if listing.rows is None and not selection.names and not selection.guesses:
        raise Unavailable(
            f"the queues cannot be listed without the management API ({listing.why}). "
            "Set BUS_MANAGEMENT_URL=http://host:port, or name a router as MODULE:ROUTER "
            "(in `bus dead`: --service MODULE:ROUTER, or --queue)."
        )
    candidates = {
        *selection.names,
        *(listing.rows if listing.rows is not None else selection.guesses),
    }
    names = (parse_queue_name(candidate) for candidate in candidates)
    return sorted(
        (name for name in names if name and selection.takes(name)), key=lambda name: name.name
    )


def may_declare_passively(
    name: QueueName, broker: BrokerAddress, listing: ManagementListing
) -> bool:
    """Return True if the inspection is allowed to declare the queue passively.

    A passive declaration restarts the expiry of a request queue. So request queues are declared
    only if `broker.renew` is True and the management API does not answer.
    """
    if name.role == "requests":
        return listing.rows is None and broker.renew
    # A reply queue is exclusive, so only the connection that created the queue can declare it.
    return name.role != "replies"


def merge_depths(
    name: QueueName, depth: QueueDepth | None, listing: ManagementListing, *, now: float
) -> QueueStatus:
    """Merge the values of one queue from AMQP and from the management API.

    If the queue is healthy, use AMQP's number of consumers, which is newer. AMQP's number of ready
    messages is used only if no message can be unacked. If not, both numbers are the API's.
    """
    row = (listing.rows or {}).get(name.name, {})
    state = row.get("state")
    problem = f"{state}" if isinstance(state, str) and state not in HEALTHY else None
    current = (
        depth if depth and not depth.last_error and not depth.missing and not problem else None
    )
    ready, unacked = _count(row, "messages_ready"), _count(row, "messages_unacknowledged")
    is_sampled = ready is not None
    if current and (ready is None or not (current.consumers or unacked)):
        # Without a consumer no message has become unacked since RabbitMQ counted.
        ready, is_sampled = current.ready, False
    # Ignore the timestamp of an empty queue. RabbitMQ still reports it for a while after the last
    # message has left the queue.
    sent = row.get("head_message_timestamp") if ready or unacked else None
    return QueueStatus(
        name=name.name,
        service=name.service,
        role=name.role,
        work_queue=name.work_queue,
        type=row.get("type"),
        exists=not depth.missing if depth else listing.rows is None or bool(row),
        ready=ready,
        unacked=unacked,
        is_sampled=is_sampled,
        consumers=current.consumers if current else _count(row, "consumers"),
        oldest=max(0.0, now - sent) if isinstance(sent, int) else None,
        last_error=problem or (depth.last_error if depth else None),
    )


def _count(row: Mapping[str, Any], key: str) -> int | None:
    """Return a number that the management API may omit."""
    value = row.get(key)
    return value if isinstance(value, int) else None
