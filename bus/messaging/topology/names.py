"""Names of queues and exchanges.

The first half of this file builds names, and the second half parses them. No other code builds a
name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bus.contracts.contract import Contract
from bus.contracts.names import PART
from bus.messaging.topology.model import QueueRole

__all__ = [
    "CONTROL",
    "DEAD",
    "EVENTS",
    "JOBS",
    "REPLIES",
    "REQUESTS",
    "RETRY_DELAYS",
    "SOURCES",
    "UPDATES",
    "QueueName",
    "dead_letter_queue",
    "longest_tier_within",
    "migration_queue",
    "parse_queue_name",
    "queue_prefix",
    "retry_delay_for",
    "routing_key_of",
    "service_of",
    "service_queues",
    "split_version",
    "work_queue",
]

REQUESTS, JOBS, EVENTS = "bus.requests", "bus.jobs", "bus.events"
REPLIES, UPDATES, DEAD = "bus.replies", "bus.updates", "bus.dead"
CONTROL = "bus.control"
"""Exchange of the questions, answers and announcements of live instances."""

SOURCES: Mapping[QueueRole, str] = {"requests": REQUESTS, "jobs": JOBS, "events": EVENTS}
"""Exchange from which a queue of each role receives the messages that services send."""

RETRY_DELAYS: Mapping[str, float] = {
    "1s": 1,
    "5s": 5,
    "30s": 30,
    "2m": 2 * 60,
    "10m": 10 * 60,
    "1h": 3600,
    "6h": 6 * 3600,
    "24h": 24 * 3600,
}
"""Mapping from the name of each retry tier to its wait in seconds.

All messages of a tier have the same wait, because only the message at the head of a queue expires.
"""


def queue_prefix(service: str, role: QueueRole) -> str:
    """Return `<service>.<role>.`, the prefix of a service's queues with this role.

    Their dead-letter queues have the same prefix.
    """
    return f"{service}.{role}."


def request_queue(contract: Contract) -> str:
    """Return `<service>.requests.<operation>.v<n>`."""
    return f"{queue_prefix(contract.service, 'requests')}{contract.operation}.v{contract.version}"


def job_queue(contract: Contract) -> str:
    """Return `<service>.jobs.<job>.v<n>`.

    Each version has its own queue, so that an old worker never receives a version it does not know.
    """
    return f"{queue_prefix(contract.service, 'jobs')}{contract.operation}.v{contract.version}"


def event_queue(subscriber: str, contract: Contract, subscription: str | None = None) -> str:
    """Return `<subscriber>.events.<event>.v<n>[.<subscription>]`."""
    name = f"{queue_prefix(subscriber, 'events')}{contract.name}.v{contract.version}"
    return f"{name}.{subscription}" if subscription else name


def reply_queue(service: str, instance: str) -> str:
    """Return `<service>.replies.<instance>`."""
    return f"{queue_prefix(service, 'replies')}{instance}"


def dead_letter_queue(queue: str) -> str:
    """Return `<queue>.dead`."""
    return f"{queue}.dead"


def work_queue(dead_letters: str) -> str | None:
    """Return the work queue of a dead-letter queue.

    Return None for the queue of unroutable messages. It contains messages whose work queue did not
    exist when a retry tier returned them.
    """
    if dead_letters == unroutable_queue(service_of(dead_letters)):
        return None
    return dead_letters.removesuffix(dead_letter_queue(""))


def service_of(queue: str) -> str:
    """Return the service to which a queue belongs."""
    return queue.partition(".")[0]


def retry_tier(service: str, tier: str) -> str:
    """Return `<service>.retry.<delay>`. The exchange and the queue of the tier have this name."""
    return f"{queue_prefix(service, 'retry')}{tier}"


def retry_return_exchange(service: str) -> str:
    """Return `<service>.return`, the exchange for messages that return from the retry tiers."""
    return f"{service}.return"


def unroutable_queue(service: str) -> str:
    """Return `<service>.unroutable.dead`.

    This queue holds messages whose work queue did not exist when a retry tier returned them.
    """
    return f"{service}.unroutable.dead"


def migration_queue(queue: str) -> str:
    """Return `bus.holding.<queue>`. This queue keeps the messages while `queue` is recreated.

    The name is unique, because no service may be called `bus`.
    """
    return f"bus.holding.{queue}"


def retry_delay_for(delay: float) -> str:
    """Return the name of the shortest retry tier that waits at least `delay` seconds.

    If no tier waits so long, return the name of the longest tier.
    """
    return next(
        (name for name, seconds in RETRY_DELAYS.items() if seconds >= delay), [*RETRY_DELAYS][-1]
    )


def longest_tier_within(seconds: float) -> str:
    """Return the name of the longest retry tier that waits at most `seconds` seconds.

    If every tier waits longer, return the name of the shortest tier.
    """
    names = [name for name, delay in RETRY_DELAYS.items() if delay <= seconds]
    return names[-1] if names else next(iter(RETRY_DELAYS))


# --- Parsing ---

VERSIONED = rf"{PART.pattern}(\.{PART.pattern})*\.v\d+"
NAME = re.compile(
    rf"(?P<service>{PART.pattern})\."
    rf"((?P<work>(requests|jobs)\.{VERSIONED}|events\.{VERSIONED}(\.{PART.pattern})?)"
    r"|replies\.(?P<instance>[\w.-]+)|retry\.(?P<tier>\w+))"
)
VERSION = re.compile(rf"(?P<before>.+?)\.v(?P<version>\d+)(?P<after>\.{PART.pattern})?")
"""Pattern of a queue name with a version. A contract's name has no such part, so the first counts.
"""
DEAD_SUFFIX = dead_letter_queue("")
ROLES: dict[str, QueueRole] = {"requests": "requests", "jobs": "jobs", "events": "events"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueName:
    """Parts of a queue name of the bus."""

    name: str
    service: str
    role: QueueRole
    work_queue: str | None = None
    """Work queue of a dead-letter queue. None for other queues and for the unroutable queue."""


def parse_queue_name(name: str) -> QueueName | None:
    """Parse the name of a queue.

    Args:
        name: Name of any queue at the broker.

    Returns:
        The parts of the name. None if the queue does not belong to the bus.
    """
    work = name.removesuffix(DEAD_SUFFIX)
    match = NAME.fullmatch(work)
    if work != name:
        return _parse_dead(name, work, match)
    if match is None or (match["tier"] and match["tier"] not in RETRY_DELAYS):
        return None
    kind = name.split(".")[1]
    role = ROLES.get(kind) or ("replies" if match["instance"] else "retry")
    return QueueName(name=name, service=match["service"], role=role)


def _parse_dead(name: str, work: str, match: re.Match[str] | None) -> QueueName | None:
    service = name.partition(".")[0]
    if match is not None and match["work"] and ROLES[work.split(".")[1]] != "requests":
        return QueueName(name=name, service=service, role="dead", work_queue=work)
    if name == unroutable_queue(service) and PART.fullmatch(service):
        return QueueName(name=name, service=service, role="dead")
    return None


def split_version(name: str) -> tuple[str, int] | None:
    """Return the name of a work or request queue without its version, and the version.

    Two queues have the same first item if they are for two versions of the same contract and for
    the same subscription. Return None if the name has no version.
    """
    match = VERSION.fullmatch(name)
    return (f"{match['before']}{match['after'] or ''}", int(match["version"])) if match else None


def routing_key_of(queue: str) -> str | None:
    """Return the routing key through which a work or request queue gets the messages of services.

    It is the type of the messages. Return None if the queue's name has no version.
    """
    service, _, rest = queue.partition(".")
    kind, _, name = rest.partition(".")
    match = VERSION.fullmatch(name)
    if match is None:
        return None
    type_ = f"{match['before']}.v{match['version']}"
    return type_ if kind == "events" else f"{service}.{type_}"


def service_queues(service: str) -> tuple[str, ...]:
    """Return the names of a service's queues for retries and for unroutable messages."""
    return (*(retry_tier(service, tier) for tier in RETRY_DELAYS), unroutable_queue(service))
