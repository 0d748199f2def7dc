"""The queues of the bus on one broker: what waits, what is being worked on, who consumes. Looking changes nothing.

Two sources are put together. AMQP's passive declaration gives what is ready, and the consumers, of now. The management API
gives the names, what is unacked, and the rest, up to some seconds old. Messages are never taken out to be looked at:
that marks them as redelivered, and counts towards a quorum queue's delivery limit.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from bus.errors import ConfigurationError, Unauthenticated, Unavailable
from bus.messaging.topology.model import QueueRole
from bus.messaging.topology.names import QueueName, parse_queue_name
from bus.operations.management_api import Management, usual_address
from bus.settings import Settings
from bus.transports.rabbitmq.handshake import BrokerInfo, probe, vhost_of
from bus.transports.rabbitmq.queue_depth import QueueDepth, depths

__all__ = ["BrokerAddress", "QueueFilter", "QueueReport", "QueueStatus", "inspect_queues"]

TIMEOUT_SECONDS = 3.0
"""Seconds for one call of the management API: without it the picture is smaller and there all the same."""
COLUMNS = "columns=name,type,state,messages_ready,messages_unacknowledged,consumers,head_message_timestamp"
TOTALS = "disable_stats=true&enable_queue_totals=true"
HEALTHY = {None, "running", "flow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue; None is what nobody could tell."""

    name: str
    service: str
    role: QueueRole
    work_queue: str | None = None
    """Of a dead-letter queue: the queue whose dead letters it holds."""
    type: str | None = None
    """`classic` or `quorum`."""
    exists: bool = True
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None
    oldest: float | None = None
    """Seconds since the message at the head was first sent. Classic queues alone tell."""
    last_error: str | None = None
    """What is wrong with the queue itself, such as a node that is down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Which queues: those of `names`, or all of one `service`, or all of the bus."""

    names: tuple[str, ...] = ()
    service: str | None = None
    guesses: tuple[str, ...] = ()
    """Names to ask for where nobody can list them; of these, those that are there."""

    def takes(self, name: QueueName) -> bool:
        """Whether a listed queue is wanted."""
        if self.names:
            return name.name in self.names or (
                name.role == "replies" and name.service == self.service
            )
        return self.service in {None, name.service}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The broker. Without a `management_url` the usual address is tried."""

    url: str = field(repr=False)
    management_url: str | None = field(default=None, repr=False)
    renew: bool = True
    """Whether request queues are asked for by AMQP where the management API does not tell."""

    @classmethod
    def of(cls, settings: Settings, *, renew: bool) -> Self:
        """The settings' broker."""
        named = settings.management_url
        return cls(
            url=settings.address,
            management_url=named.get_secret_value() if named else None,
            renew=renew,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """What was found."""

    server: BrokerInfo
    queues: tuple[QueueStatus, ...]
    without_management: str | None = None
    """Why the management API told nothing; None where it did."""
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementListing:
    """What the management API told, by queue; or why it did not."""

    rows: Mapping[str, Mapping[str, Any]] | None = None
    why: str | None = None


async def inspect_queues(
    where: BrokerAddress, wanted: QueueFilter, *, clock: Callable[[], float] = time.time
) -> QueueReport:
    """Look once.

    Raises as `probe` does where AMQP does not answer; `Unavailable` where the queues have to be listed and only AMQP
    answers; `ConfigurationError` for a `management_url` that is none, or is another broker's.
    """
    server = await probe(where.url)
    listing = await fetch_listing(where, server)
    names = select_names(wanted, listing)
    asked = await depths(
        where.url, [each.name for each in names if may_declare_passively(each, where, listing)]
    )
    states = [merge_depths(each, asked.get(each.name), listing, now=clock()) for each in names]
    expected = {*wanted.names}
    return QueueReport(
        server=server,
        queues=tuple(each for each in states if each.exists or each.name in expected),
        without_management=listing.why,
        at=clock(),
    )


async def fetch_listing(where: BrokerAddress, server: BrokerInfo) -> ManagementListing:
    """What the management API tells of every queue in the virtual host. It is checked to be that broker's."""
    try:
        api = Management(
            where.management_url or usual_address(where.url), where.url, timeout=TIMEOUT_SECONDS
        )
        overview = await api.call("GET", "overview")
        if overview.get("cluster_name") != server.cluster:
            return wrong_broker(where, api)
        return ManagementListing(rows=await rows(api, vhost_of(where.url)))
    except (Unavailable, Unauthenticated) as error:
        return ManagementListing(why=str(error))


def wrong_broker(where: BrokerAddress, api: Management) -> ManagementListing:
    """The usual address is a guess, and on one machine the API of another node may be there; one that was set is an error."""
    if where.management_url:
        raise ConfigurationError(f"BUS_MANAGEMENT_URL ({api.where}) and BUS_URL name two brokers")
    return ManagementListing(why=f"what answers on {api.where} is another broker's management API")


async def rows(api: Management, vhost: str) -> dict[str, Mapping[str, Any]]:
    """By queue: its statistics, with the totals, which RabbitMQ gives sooner than these, laid over them."""
    path = f"queues/{quote(vhost, safe='')}?{COLUMNS}"
    statistics, totals = await asyncio.gather(
        api.call("GET", path), api.call("GET", f"{path}&{TOTALS}")
    )
    found = {each["name"]: each for each in statistics}
    return {each["name"]: {**found.get(each["name"], {}), **each} for each in totals}


def select_names(wanted: QueueFilter, listing: ManagementListing) -> list[QueueName]:
    """The names to tell of, sorted; `Unavailable` where nobody can list them."""
    if listing.rows is None and not wanted.names and not wanted.guesses:
        raise Unavailable(
            f"{listing.why}; only it can list the queues: set BUS_MANAGEMENT_URL=http://host:port, or name a router as MODULE:ROUTER "
            "(`bus dead` takes it by --service, and queues by --queue)"
        )
    known = {*wanted.names, *(listing.rows if listing.rows is not None else wanted.guesses)}
    names = (parse_queue_name(each) for each in known)
    return sorted(
        (each for each in names if each and wanted.takes(each)), key=lambda each: each.name
    )


def may_declare_passively(
    name: QueueName, where: BrokerAddress, listing: ManagementListing
) -> bool:
    """Whether to ask by AMQP. A question keeps a queue alive that expires unused, so those are asked for only where nothing else tells."""
    if name.role == "requests":
        return listing.rows is None and where.renew
    return name.role != "replies"  # exclusive: told to their own connection alone


def merge_depths(
    name: QueueName, depth: QueueDepth | None, listing: ManagementListing, *, now: float
) -> QueueStatus:
    """What both sources say of one queue; AMQP's word is the newer, where the queue is well."""
    row = (listing.rows or {}).get(name.name, {})
    unwell = None if row.get("state") in HEALTHY else f"{row['state']}"
    told = depth if depth and not depth.last_error and not depth.missing and not unwell else None
    ready, unacked = (
        told.ready if told else row.get("messages_ready"),
        row.get("messages_unacknowledged"),
    )
    sent = (
        row.get("head_message_timestamp") if ready or unacked else None
    )  # it stays for a while when the message has gone
    return QueueStatus(
        name=name.name,
        service=name.service,
        role=name.role,
        work_queue=name.work_queue,
        type=row.get("type"),
        exists=not depth.missing if depth else listing.rows is None or bool(row),
        ready=ready,
        unacked=unacked,
        consumers=told.consumers if told else row.get("consumers"),
        oldest=max(0.0, now - sent) if isinstance(sent, int) else None,
        last_error=unwell or (depth.last_error if depth else None),
    )
