"""The usage of each version of a contract: its senders, its servers and its subscribers.

The input is what live instances answered. So an instance that has stopped is not counted as a
server or a sender. A server that is alive still reports the callers whose messages it handled.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bus.contracts.contract import Contract, Kind
from bus.messaging.instruments import HANDLED, SENT
from bus.messaging.service_info import ContractInfo, InstanceInfo, InstanceStats, Series

__all__ = ["Caller", "ContractUsage", "Server", "UsageReport", "Watched", "examine_usage"]

VERSION = re.compile(r"[1-9][0-9]{0,3}")
COUNTERS = frozenset({SENT.name, HANDLED.name})
KINDS: Mapping[str, Kind] = {"request": "request", "event": "event", "job": "job"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A service with live instances that serve a version, or that subscribe to an event."""

    service: str
    subscription: str | None = None
    instances: int = 0
    handled: int = 0
    """Attempts of the live instances to handle a message of this version."""
    last: int | None = None
    """Time of the last attempt, in milliseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A service that sends messages of a version."""

    service: str
    """Name of the service. `unverified` is a sender that the receiver did not authenticate."""
    sent: int = 0
    """Messages that the live instances of this service have sent."""
    handled: int = 0
    """Attempts of live receivers to handle a message of this service, also of stopped instances."""
    last: int | None = None
    """Time of the last message or attempt, in milliseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractUsage:
    """The usage of one version of a contract."""

    name: str
    """Name of the contract without its version."""
    version: int
    kind: Kind
    servers: tuple[Server, ...] = ()
    """The services that serve a request or job, or that subscribe to an event."""
    callers: tuple[Caller, ...] = ()
    """The services that send the message."""
    latest: int = 1
    """The highest version of the contract that is known here."""

    @property
    def type(self) -> str:
        """Type on the wire."""
        return f"{self.name}.v{self.version}"

    @property
    def is_old(self) -> bool:
        """True if a higher version is known."""
        return self.version < self.latest


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A live instance, and the time from which it has counted."""

    service: str
    instance: str
    since: int
    """Milliseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """The usage of all contracts, as the live instances know it."""

    contracts: tuple[ContractUsage, ...]
    """All contracts in the answers and in the catalog, by name and version."""
    watched: tuple[Watched, ...]
    """The instances that answered, the one with the earliest count first."""
    left_out: int = 0
    """Number of entries that the answers do not contain, because they would be too large."""
    combined: int = 0
    """Number of messages whose contracts are not known.

    An instance with too many contracts or callers counts the further ones together.
    """

    @property
    def since(self) -> int | None:
        """Begin of the earliest count, in milliseconds since the epoch. None without an answer."""
        return self.watched[0].since if self.watched else None

    @property
    def unused(self) -> tuple[ContractUsage, ...]:
        """The contracts of which no sender is known."""
        return tuple(each for each in self.contracts if not each.callers)

    @property
    def old(self) -> tuple[ContractUsage, ...]:
        """The contracts with a higher version that have senders, servers or subscribers."""
        return tuple(
            each for each in self.contracts if each.is_old and (each.callers or each.servers)
        )


@dataclass(slots=True)
class _Count:
    """Numbers of one service."""

    sent: int = 0
    handled: int = 0
    last: int = 0
    instances: set[str] = field(default_factory=set)

    def see(self, milliseconds: int) -> None:
        self.last = max(self.last, milliseconds)

    @property
    def last_or_none(self) -> int | None:
        return self.last or None


@dataclass(slots=True)
class _Version:
    """Numbers of one version of a contract."""

    kind: Kind
    callers: defaultdict[str, _Count] = field(default_factory=lambda: defaultdict(_Count))
    servers: defaultdict[tuple[str, str], _Count] = field(
        default_factory=lambda: defaultdict(_Count)
    )
    """The counts by service and subscription, which is empty without a name."""


def examine_usage(
    info: Iterable[InstanceInfo],
    stats: Sequence[InstanceStats],
    catalog: Iterable[Contract] = (),
) -> UsageReport:
    """Return the usage of each version of each contract.

    Args:
        info: Answers to INFO, at most one for each instance.
        stats: Answers to STATS, at most one for each instance.
        catalog: Contracts that are listed also if no instance knows them.
    """
    info = tuple(info)
    versions: dict[tuple[str, int], _Version] = {}
    for contract in catalog:
        versions[contract.name, contract.version] = _Version(contract.kind)
    for answer in info:
        for served in answer.contracts:
            _add_server(versions, served, answer)
    combined = 0
    for counted in stats:
        for series in counted.series:
            if series.name in COUNTERS and not _add_series(versions, series, counted.service):
                combined += int(series.value)
    latest: dict[str, int] = {}
    for name, version in versions:
        latest[name] = max(version, latest.get(name, 1))
    return UsageReport(
        contracts=tuple(
            _usage_of(name, number, versions[name, number], latest[name])
            for name, number in sorted(versions)
        ),
        watched=tuple(
            Watched(service=each.service, instance=each.instance, since=each.since)
            for each in sorted(stats, key=lambda each: (each.since, each.service, each.instance))
        ),
        left_out=sum(each.left_out for each in (*info, *stats)),
        combined=combined,
    )


def _add_server(
    versions: dict[tuple[str, int], _Version], served: ContractInfo, answer: InstanceInfo
) -> None:
    name, _, number = served.type.rpartition(".v")
    if not name or not VERSION.fullmatch(number):
        return  # of a later version of the bus
    version = versions.setdefault((name, int(number)), _Version(served.kind))
    version.servers[answer.service, served.subscription or ""].instances.add(answer.instance)


def _add_series(versions: dict[tuple[str, int], _Version], series: Series, service: str) -> bool:
    """Add a counter of sent or handled messages. Return False if it has no version.

    A meter combines the labels of too many series. Their version is then not a number.
    """
    labels, amount = series.labels, int(series.value)
    kind, number = KINDS.get(labels.get("kind", "")), labels.get("version", "")
    if kind is None or not VERSION.fullmatch(number):
        return False
    if not amount:
        return True
    version = versions.setdefault((labels.get("operation", ""), int(number)), _Version(kind))
    if series.name == SENT.name:
        caller = version.callers[service]
        caller.sent += amount
    else:
        caller = version.callers[labels.get("caller", "")]
        caller.handled += amount
        server = version.servers[service, labels.get("subscription", "")]
        server.handled += amount
        server.see(series.last)
    caller.see(series.last)
    return True


def _usage_of(name: str, number: int, version: _Version, latest: int) -> ContractUsage:
    return ContractUsage(
        name=name,
        version=number,
        kind=version.kind,
        servers=tuple(
            Server(
                service=service,
                subscription=subscription or None,
                instances=len(count.instances),
                handled=count.handled,
                last=count.last_or_none,
            )
            for (service, subscription), count in sorted(version.servers.items())
        ),
        callers=tuple(
            Caller(service=service, sent=count.sent, handled=count.handled, last=count.last_or_none)
            for service, count in sorted(version.callers.items())
        ),
        latest=latest,
    )
