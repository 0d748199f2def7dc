"""What each service may do at the broker, as RabbitMQ's users, permissions and topic permissions.

Sources: RabbitMQ's pages on access control and passwords. A permission is a regular expression on the names of exchanges and
queues alike; a topic permission is one on the routing keys of a topic exchange. Without any for an exchange all keys are allowed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bus.contracts.contract import Contract
from bus.errors import ConfigurationError
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.model import QueueRole
from bus.messaging.topology.names import (
    DEAD,
    EVENTS,
    JOBS,
    REPLIES,
    REQUESTS,
    UPDATES,
    queue_prefix,
    retry_return_exchange,
    unroutable_queue,
)
from bus.operations.topology.user_passwords import password_hash
from bus.security.grants import Grants

__all__ = [
    "ADMINISTRATOR",
    "BrokerUser",
    "broker_users",
    "check_consume_grants",
    "permissions",
    "users",
]

ADMINISTRATOR = "bus.topology"
"""The user of `bus topology` and of operators: it alone declares and binds. No service's name has a dot."""
NOTHING, EVERYTHING = "", ".*"
"""RabbitMQ takes an empty pattern for one that no name fits."""
NAMED_BY_BROKER = r"^amq\.gen-[\w-]+$"
"""The one thing that a service declares is its queue for replies, and the broker names it. A name of the service's own would also be
one of an exchange, whose alternate exchange takes any key where only the exchange itself may be published to (ADR 0020)."""
CONSUMED: Sequence[QueueRole] = ("requests", "jobs", "events")
WORK: Sequence[QueueRole] = ("jobs", "events")
"""What has dead letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Routing keys of one topic exchange, as patterns."""

    write: str = NOTHING
    """To publish with."""
    read: str = NOTHING
    """To bind with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """One service's user."""

    name: str
    configure: str
    """What it may declare and delete."""
    write: str
    """What it may publish to, and bind."""
    read: str
    """What it may consume, and bind to."""
    keys: Mapping[str, Keys]
    """By topic exchange, every one of the bus's: an exchange without an entry would take any key."""


def broker_users(
    grants: Grants, contracts: Iterable[Contract], serving: Iterable[str]
) -> tuple[BrokerUser, ...]:
    """A user for each service that has grants or serves; it can only do what these and the names of its own queues need."""
    known, services = tuple(contracts), sorted({*grants.services, *serving})
    return tuple(_user(service, services, grants, known) for service in services)


def _user(
    service: str, services: Sequence[str], grants: Grants, contracts: Sequence[Contract]
) -> BrokerUser:
    events = [each for each in contracts if each.kind == "event"]
    called = [
        each
        for each in contracts
        if each.kind != "event" and grants.may_call(service, each.permission)
    ]
    served = {each.kind for each in contracts if each.service == service}
    works = "job" in served or any(grants.may_consume(service, each.permission) for each in events)
    # All services may be answered: who asked without the right has to hear that. Itself only where it asks itself.
    asking = [
        each
        for each in services
        if each != service or any(each.service == service for each in called)
    ]
    answers, own = (
        _any(_beginning(queue_prefix(each, "replies")) for each in asking),
        _beginning(queue_prefix(service, "replies")),
    )
    keys = {
        REQUESTS: Keys(write=_these(each.type for each in called if each.kind == "request")),
        JOBS: Keys(write=_these(each.type for each in called if each.kind == "job")),
        EVENTS: Keys(
            write=_these(
                each.type for each in events if grants.may_publish(service, each.permission)
            )
        ),
        REPLIES: Keys(write=answers if "request" in served else NOTHING, read=own),
        UPDATES: Keys(write=answers if "job" in served else NOTHING, read=own),
        DEAD: Keys(
            write=_any(_beginning(queue_prefix(service, purpose)) for purpose in WORK)
            if works
            else NOTHING
        ),
    }
    exchanges = _these(name for name, each in keys.items() if each.write)
    returning = (
        (_beginning(queue_prefix(service, "retry")), _these([retry_return_exchange(service)]))
        if works
        else ()
    )
    consumed = (
        *(_beginning(queue_prefix(service, purpose)) for purpose in CONSUMED),
        _these([unroutable_queue(service)]),
    )
    return BrokerUser(
        name=service,
        configure=NAMED_BY_BROKER,
        write=_any((exchanges, *returning, NAMED_BY_BROKER)),
        read=_any((*consumed, _these((REPLIES, UPDATES)), NAMED_BY_BROKER)),
        keys=keys,
    )


def check_consume_grants(service: str, contracts: Iterable[Contract], grants: Grants) -> None:
    """Raise `ConfigurationError` if `service` serves an event that it may not consume: its queue would be bound nevertheless."""
    for contract in contracts:
        if contract.kind == "event" and not grants.may_consume(service, contract.permission):
            raise ConfigurationError(
                f"{service} subscribes to {contract.type}, and services.{service}.consume has no {contract.permission!r}"
            )


def _these(names: Iterable[str]) -> str:
    """A pattern that exactly these names fit."""
    found = sorted({_escaped(name) for name in names})
    return f"^({'|'.join(found)})$" if found else NOTHING


def _beginning(text: str) -> str:
    """A pattern that names fit that begin so. No wildcard of a topic exchange: who binds with one would get others' messages."""
    return rf"^{_escaped(text)}[\w.-]+$"


def _any(patterns: Iterable[str]) -> str:
    return "|".join(pattern for pattern in patterns if pattern)


def _escaped(name: str) -> str:
    """Names of the bus have no other character that means something in a pattern."""
    return name.replace(".", r"\.")


# --- as RabbitMQ imports them --------------------------------------------------------------------------------------------------


def permissions(found: Sequence[BrokerUser], *, vhost: str) -> dict[str, Any]:
    """Their permissions and topic permissions in a virtual host, and the administrator's."""
    place = {"vhost": vhost}
    return {
        "permissions": [
            {
                "user": ADMINISTRATOR,
                **place,
                "configure": EVERYTHING,
                "write": EVERYTHING,
                "read": EVERYTHING,
            },
            *(
                {
                    "user": each.name,
                    **place,
                    "configure": each.configure,
                    "write": each.write,
                    "read": each.read,
                }
                for each in found
            ),
        ],
        "topic_permissions": [
            {
                "user": each.name,
                **place,
                "exchange": exchange,
                "write": keys.write,
                "read": keys.read,
            }
            for each in found
            for exchange, keys in sorted(each.keys.items())
        ],
    }


def users(found: Sequence[BrokerUser], passwords: Mapping[str, str] | None) -> list[dict[str, Any]]:
    """The users themselves; without passwords none of them can use one, as with certificates.

    Raises `ConfigurationError` where a user has no password in `passwords`, or a password no user.
    """
    names = [ADMINISTRATOR, *(each.name for each in found)]
    if passwords is not None:
        missing = [name for name in names if not passwords.get(name)]
        stray = sorted(passwords.keys() - set(names))
        if missing:
            strays = (
                f"; there is one for {', '.join(map(repr, stray))}, which is no user"
                if stray
                else ""
            )
            raise ConfigurationError(f"no password for {', '.join(missing)}{strays}")
        if stray:
            raise ConfigurationError(
                f"a password for {stray[0]!r}, which is no user{did_you_mean(stray[0], names)}"
            )
    return [
        {
            "name": name,
            "password_hash": "" if passwords is None else password_hash(passwords[name]),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["management"] if name == ADMINISTRATOR else [],
        }
        for name in names
    ]
