"""The usage of each version of a contract: its senders, its servers and its subscribers.

The input is what live instances answered. So an instance that has stopped is not counted as a
server or a sender. A server that is alive still reports the callers whose messages it handled.

A service is believed only about itself. It serves contracts that begin with its name, and each
service can subscribe to events.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bus.contracts.contract import Contract, Kind
from bus.contracts.names import MAX_NAME_LENGTH, NAME, PART
from bus.messaging.instruments import HANDLED, SENT
from bus.messaging.service_info import ContractInfo, InstanceInfo, InstanceStats, Series
from bus.messaging.topology.names import service_of

__all__ = ["Caller", "ContractUsage", "Server", "UsageReport", "Watched", "examine_usage"]

Key = tuple[str, int]
"""Name and version of a contract."""
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
    """The highest version that the owner of the contract or the catalog knows."""

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
    served = [(each, answer) for answer in info for each in answer.contracts]
    # The owner of a contract comes first, so it decides which kind the contract has.
    for each, answer in sorted(served, key=lambda pair: not _is_owner(*pair)):
        _add_server(versions, each, answer)
    own = (_parse(each.type) for each, answer in served if _is_owner(each, answer))
    owned = {*versions, *filter(None, own)}
    combined = 0
    for counted in stats:
        for series in counted.series:
            if series.name in COUNTERS and not _add_series(versions, series, counted.service):
                combined += int(series.value)
            elif series.name == SENT.name:
                owned.update(_sent_by_owner(series, counted.service))
    # Only an owner or the catalog decides which version is the latest.
    latest: dict[str, int] = {}
    for name, version in owned & versions.keys():
        latest[name] = max(version, latest.get(name, 1))
    return UsageReport(
        contracts=tuple(
            _usage_of(name, number, versions[name, number], latest.get(name, number))
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
    key = _parse(served.type)
    if key is None or not _can_serve(answer.service, key[0], served.kind):
        return
    version = versions.setdefault(key, _Version(served.kind))
    if version.kind != served.kind:
        return
    version.servers[answer.service, served.subscription or ""].instances.add(answer.instance)


def _add_series(versions: dict[tuple[str, int], _Version], series: Series, service: str) -> bool:
    """Add a counter of sent or handled messages. Return False if it has no version.

    A meter combines the labels of too many series. Their version is then not a number.
    """
    labels, amount = series.labels, int(series.value)
    kind, key = KINDS.get(labels.get("kind", "")), _key_of(series)
    if kind is None or key is None:
        return False
    if not amount:
        return True
    if series.name == HANDLED.name and not (
        _can_serve(service, key[0], kind) and PART.fullmatch(labels.get("caller", ""))
    ):
        return False
    version = versions.setdefault(key, _Version(kind))
    if version.kind != kind:
        return False
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


def _is_owner(served: ContractInfo, answer: InstanceInfo) -> bool:
    return service_of(served.type) == answer.service


def _sent_by_owner(series: Series, service: str) -> Iterator[Key]:
    """Yield the contract of sent messages if it is one of their sender. So it knows its events."""
    key = _key_of(series)
    if key is not None and service_of(key[0]) == service:
        yield key


def _can_serve(service: str, name: str, kind: Kind) -> bool:
    """Return True if a service can serve a contract. Each service can subscribe to events."""
    return kind == "event" or service_of(name) == service


def _parse(type_: str) -> Key | None:
    """Return the name and the version in a type. None: it is of a later version of the bus."""
    name, _, number = type_.rpartition(".v")
    is_known = NAME.fullmatch(name) and len(name) <= MAX_NAME_LENGTH and VERSION.fullmatch(number)
    return (name, int(number)) if is_known else None


def _key_of(series: Series) -> Key | None:
    labels = series.labels
    return _parse(f"{labels.get('operation', '')}.v{labels.get('version', '')}")


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
