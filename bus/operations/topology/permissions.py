"""The users, permissions and topic permissions that RabbitMQ needs for the services.

RabbitMQ's pages on access control and passwords describe the formats. A permission is a regular
expression for the names of exchanges and queues. A topic permission is a regular expression for the
routing keys of a topic exchange. An exchange without a topic permission accepts every key.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bus.contracts.contract import Contract
from bus.errors import ConfigurationError
from bus.messaging.jobs.questions import JOB_RIGHTS, cancel_contract, get_contract
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.control import (
    ALL_ANNOUNCEMENTS,
    announcement_key,
    answer_key,
    question_key,
)
from bus.messaging.topology.model import QueueRole
from bus.messaging.topology.names import (
    CONTROL,
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
"""Broker user of `bus topology` and of operators.

A service declares and binds only its queues for replies and for the control channel. The
administrator declares and binds all other objects. No service can have the administrator's name,
because a service name has no dot.
"""
NOTHING, EVERYTHING = "", ".*"
"""Patterns for no name and for every name. In RabbitMQ an empty pattern matches no name."""
NAMED_BY_BROKER = r"^amq\.gen-[\w-]+$"
"""Pattern for the queues of replies and of the control channel. A service declares no others.

The broker chooses the queue's name. If a service could choose the name, the service could also
declare an exchange with this name, and connect it to an alternate exchange. RabbitMQ does not check
the routing keys of messages that an exchange forwards to its alternate exchange (ADR 0020).
"""
QUESTIONS = (get_contract, cancel_contract)
"""Functions that return the contracts of the questions about the jobs of a service."""
CONSUMED: Sequence[QueueRole] = ("requests", "jobs", "events")
WORK: Sequence[QueueRole] = ("jobs", "events")
"""Roles of the queues that have a dead-letter queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Patterns for the routing keys of one topic exchange."""

    write: str = NOTHING
    """Pattern for the routing keys that the user is allowed to use for publishing."""
    read: str = NOTHING
    """Pattern for the routing keys that the user is allowed to use for bindings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """The broker user of one service."""

    name: str
    configure: str
    """Pattern for the objects that the user is allowed to declare and delete."""
    write: str
    """Pattern for the names of exchanges and queues.

    The user is allowed to publish to these exchanges, and to bind these queues.
    """
    read: str
    """Pattern for the names of queues and exchanges.

    The user is allowed to consume these queues, and to bind queues to these exchanges.
    """
    keys: Mapping[str, Keys]
    """Permitted routing keys. The key of the mapping is the name of the topic exchange.

    The mapping has every topic exchange of the bus. If an exchange has no topic permission,
    RabbitMQ accepts every routing key.
    """


def broker_users(
    grants: Grants, contracts: Iterable[Contract], serving: Iterable[str]
) -> tuple[BrokerUser, ...]:
    """Return a broker user for each service that has grants or is in `serving`.

    A user has only the permissions that the service needs for its grants and its own queues.
    """
    all_contracts, services = tuple(contracts), sorted({*grants.services, *serving})
    return tuple(_build_user(service, services, grants, all_contracts) for service in services)


def _build_user(
    service: str, services: Sequence[str], grants: Grants, contracts: Sequence[Contract]
) -> BrokerUser:
    events = [contract for contract in contracts if contract.kind == "event"]
    called = [
        contract
        for contract in contracts
        if contract.kind != "event" and grants.may_call(service, contract.permission)
    ]
    asked = _asked_about_jobs(service, grants, contracts, called)
    served_kinds = {contract.kind for contract in contracts if contract.service == service}
    has_work_queues = "job" in served_kinds or any(
        grants.may_consume(service, contract.permission) for contract in events
    )
    # A caller without a grant receives an error reply. So this service must be able to reply to
    # every other service. It is allowed to reply to itself only if it is
    # allowed to call itself.
    callers = [
        name
        for name in services
        if name != service
        or any(contract.service == name for contract in called)
        or service in asked
    ]
    caller_replies, own_replies = (
        _match_any(_match_prefix(queue_prefix(name, "replies")) for name in callers),
        _match_prefix(queue_prefix(service, "replies")),
    )
    keys = {
        REQUESTS: Keys(
            write=_match_names(
                (
                    *(contract.type for contract in called if contract.kind == "request"),
                    *(question(name).type for name in asked for question in QUESTIONS),
                )
            )
        ),
        JOBS: Keys(
            write=_match_names(contract.type for contract in called if contract.kind == "job")
        ),
        EVENTS: Keys(
            write=_match_names(
                contract.type
                for contract in events
                if grants.may_publish(service, contract.permission)
            )
        ),
        REPLIES: Keys(
            # A service with jobs answers questions about them.
            write=caller_replies if served_kinds & {"request", "job"} else NOTHING,
            read=own_replies,
        ),
        UPDATES: Keys(write=caller_replies if "job" in served_kinds else NOTHING, read=own_replies),
        DEAD: Keys(
            write=_match_any(_match_prefix(queue_prefix(service, purpose)) for purpose in WORK)
            if has_work_queues
            else NOTHING
        ),
    }
    keys[CONTROL] = _control_keys(service, grants, called)
    exchanges = _match_names(name for name, exchange_keys in keys.items() if exchange_keys.write)
    retries = (
        (
            _match_prefix(queue_prefix(service, "retry")),
            _match_names([retry_return_exchange(service)]),
        )
        if has_work_queues
        else ()
    )
    consumed = (
        *(_match_prefix(queue_prefix(service, purpose)) for purpose in CONSUMED),
        _match_names([unroutable_queue(service)]),
    )
    return BrokerUser(
        name=service,
        configure=NAMED_BY_BROKER,
        write=_match_any((exchanges, *retries, NAMED_BY_BROKER)),
        read=_match_any((*consumed, _match_names((REPLIES, UPDATES, CONTROL)), NAMED_BY_BROKER)),
        keys=keys,
    )


def _asked_about_jobs(
    service: str, grants: Grants, contracts: Sequence[Contract], called: Sequence[Contract]
) -> list[str]:
    """Return the services that `service` may ask about jobs: its own jobs, and granted ones."""
    jobs = [contract for contract in contracts if contract.kind == "job"]
    granted = [
        job
        for job in jobs
        if any(grants.may_access_jobs(service, right, job.name) for right in JOB_RIGHTS)
    ]
    submitted = [contract for contract in called if contract.kind == "job"]
    return sorted({contract.service for contract in (*submitted, *granted)})


def _control_keys(service: str, grants: Grants, called: Iterable[Contract]) -> Keys:
    """Return the routing keys on the control channel.

    Every service receives questions and answers of its own, and answers every asker. A service
    that may read can ask everybody, and hears the announcements of all services. Another service
    can only ask itself and the services that it calls.
    """
    asked = (
        [_match_prefix("ask.")]
        if grants.may_read(service)
        # A process asks the other instances of its service about their store.
        else [
            _match_names(
                question_key(name) for name in (service, *(each.service for each in called))
            )
        ]
    )
    heard = [_escape(ALL_ANNOUNCEMENTS).replace("*", r"\*")] if grants.may_read(service) else []
    return Keys(
        write=_match_any(
            (_match_prefix("answer."), _match_names([announcement_key(service)]), *asked)
        ),
        read=_match_any(
            (
                _match_names((question_key(), question_key(service))),
                _match_prefix(question_key(service, "")),
                _match_prefix(answer_key(service, "")),
                *(f"^{key}$" for key in heard),
            )
        ),
    )


def check_consume_grants(service: str, contracts: Iterable[Contract], grants: Grants) -> None:
    """Check that `service` may consume every event that it subscribes to.

    Without this check, the administrator would bind the service's queue to events that the service
    has no grant for.

    Raises:
        ConfigurationError: A grant is missing.
    """
    for contract in contracts:
        if contract.kind == "event" and not grants.may_consume(service, contract.permission):
            raise ConfigurationError(
                f"service {service!r} subscribes to {contract.type} without a grant. "
                f"Add {contract.permission!r} to services.{service}.consume."
            )


def _match_names(names: Iterable[str]) -> str:
    """Return a pattern that matches exactly these names."""
    alternatives = sorted({_escape(name) for name in names})
    return f"^({'|'.join(alternatives)})$" if alternatives else NOTHING


def _match_prefix(text: str) -> str:
    """Return a pattern for names with this prefix.

    The pattern does not match the wildcards `*` and `#`. If a user could bind a queue with a
    wildcard, the user would receive messages of other services.
    """
    return rf"^{_escape(text)}[\w.-]+$"


def _match_any(patterns: Iterable[str]) -> str:
    return "|".join(pattern for pattern in patterns if pattern)


def _escape(name: str) -> str:
    """Escape a name for a pattern. The dot is the only special character in names of the bus."""
    return name.replace(".", r"\.")


# --- Definitions that RabbitMQ imports ------------------------------------------------------------


def permissions(service_users: Sequence[BrokerUser], *, vhost: str) -> dict[str, Any]:
    """Return the permissions and topic permissions of the services and of the administrator."""
    location = {"vhost": vhost}
    return {
        "permissions": [
            {
                "user": ADMINISTRATOR,
                **location,
                "configure": EVERYTHING,
                "write": EVERYTHING,
                "read": EVERYTHING,
            },
            *(
                {
                    "user": user.name,
                    **location,
                    "configure": user.configure,
                    "write": user.write,
                    "read": user.read,
                }
                for user in service_users
            ),
        ],
        "topic_permissions": [
            {
                "user": user.name,
                **location,
                "exchange": exchange,
                "write": keys.write,
                "read": keys.read,
            }
            for user in service_users
            for exchange, keys in sorted(user.keys.items())
        ],
    }


def users(
    service_users: Sequence[BrokerUser], passwords: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Return the administrator and the users of the services. Each user has a password hash.

    Args:
        service_users: The users of the services.
        passwords: The password of each user. If None, no user can log in with a password. Use None
            if the broker authenticates users by certificates.

    Raises:
        ConfigurationError: A user has no password, or `passwords` has an unknown user.
    """
    names = [ADMINISTRATOR, *(user.name for user in service_users)]
    if passwords is not None:
        missing = [name for name in names if not passwords.get(name)]
        unknown = sorted(passwords.keys() - set(names))
        if missing:
            hint = (
                f"; the passwords name unknown users: {', '.join(map(repr, unknown))}"
                if unknown
                else ""
            )
            raise ConfigurationError(
                f"the password of {', '.join(missing)} is not set{hint}. Add a line for each user."
            )
        if unknown:
            raise ConfigurationError(
                f"the passwords name an unknown user: {unknown[0]!r}"
                f"{did_you_mean(unknown[0], names)}"
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
