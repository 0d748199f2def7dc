"""The names of queues and exchanges: derived in the first half of this file, parsed in the second. No other code builds a name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bus.contracts.contract import PART, Contract
from bus.messaging.topology.model import QueueRole

__all__ = [
    "DEAD",
    "EVENTS",
    "JOBS",
    "REPLIES",
    "REQUESTS",
    "RETRY_DELAYS",
    "UPDATES",
    "QueueName",
    "dead_letter_queue",
    "migration_queue",
    "parse_queue_name",
    "queue_prefix",
    "retry_delay_for",
    "service_of",
    "service_queues",
    "work_queue",
]

REQUESTS, JOBS, EVENTS = "bus.requests", "bus.jobs", "bus.events"
REPLIES, UPDATES, DEAD = "bus.replies", "bus.updates", "bus.dead"


RETRY_DELAYS: Mapping[str, float] = {"1s": 1, "5s": 5, "30s": 30, "2m": 120, "10m": 600, "1h": 3600}
"""The retry tiers, in seconds. Fixed, because of a mixed queue only the head expires."""


def queue_prefix(service: str, purpose: QueueRole) -> str:
    """`<service>.<purpose>.`: how the names of its queues of this purpose begin, their dead letters' included."""
    return f"{service}.{purpose}."


def request_queue(contract: Contract) -> str:
    """`<service>.requests.<operation>.v<n>`."""
    return f"{queue_prefix(contract.service, 'requests')}{contract.operation}.v{contract.version}"


def job_queue(contract: Contract) -> str:
    """`<service>.jobs.<job>.v<n>`: a queue a version, so that an old worker never sees what only a new one knows."""
    return f"{queue_prefix(contract.service, 'jobs')}{contract.operation}.v{contract.version}"


def event_queue(subscriber: str, contract: Contract, subscription: str | None = None) -> str:
    """`<subscriber>.events.<event>.v<n>[.<subscription>]`."""
    name = f"{queue_prefix(subscriber, 'events')}{contract.name}.v{contract.version}"
    return f"{name}.{subscription}" if subscription else name


def reply_queue(service: str, instance: str) -> str:
    """`<service>.replies.<instance>`."""
    return f"{queue_prefix(service, 'replies')}{instance}"


def dead_letter_queue(queue: str) -> str:
    """`<queue>.dead`."""
    return f"{queue}.dead"


def work_queue(dead_letters: str) -> str | None:
    """The work queue whose dead letters this queue holds; None for those that came back from a tier and found their queue gone."""
    if dead_letters == unroutable_queue(service_of(dead_letters)):
        return None
    return dead_letters.removesuffix(dead_letter_queue(""))


def service_of(queue: str) -> str:
    """The service that a queue belongs to."""
    return queue.partition(".")[0]


def retry_tier(service: str, tier: str) -> str:
    """`<service>.retry.<delay>`, both the exchange and its queue."""
    return f"{queue_prefix(service, 'retry')}{tier}"


def retry_return_exchange(service: str) -> str:
    """`<service>.return`, the way back from the retry tiers."""
    return f"{service}.return"


def unroutable_queue(service: str) -> str:
    """`<service>.unroutable.dead`: what came back from a tier and found its queue gone."""
    return f"{service}.unroutable.dead"


def migration_queue(queue: str) -> str:
    """`bus.holding.<queue>`: where its messages wait while it is made anew. No service is called `bus`."""
    return f"bus.holding.{queue}"


def retry_delay_for(delay: float) -> str:
    """The shortest tier that is at least `delay` seconds; the longest where none is."""
    return next(
        (name for name, seconds in RETRY_DELAYS.items() if seconds >= delay), [*RETRY_DELAYS][-1]
    )


# --- parsing ----------------------------------------------------------------------------------------------------

VERSIONED = rf"{PART.pattern}(\.{PART.pattern})*\.v\d+"
NAME = re.compile(
    rf"(?P<service>{PART.pattern})\."
    rf"((?P<work>(requests|jobs)\.{VERSIONED}|events\.{VERSIONED}(\.{PART.pattern})?)|replies\.(?P<instance>[\w.-]+)|retry\.(?P<tier>\w+))"
)
DEAD_SUFFIX = dead_letter_queue("")
ROLES: dict[str, QueueRole] = {"requests": "requests", "jobs": "jobs", "events": "events"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueName:
    """What a queue of the bus's topology says by its name."""

    name: str
    service: str
    role: QueueRole
    work_queue: str | None = None
    """Of a dead-letter queue: the queue whose dead letters it holds; None for those that came back from a tier in vain."""


def parse_queue_name(name: str) -> QueueName | None:
    """What `name` says; None for a queue that is none of the bus's."""
    work = name.removesuffix(DEAD_SUFFIX)
    found = NAME.fullmatch(work)
    if work != name:
        return _dead(name, work, found)
    if found is None or (found["tier"] and found["tier"] not in RETRY_DELAYS):
        return None
    kind = name.split(".")[1]
    purpose = ROLES.get(kind) or ("replies" if found["instance"] else "retry")
    return QueueName(name=name, service=found["service"], role=purpose)


def _dead(name: str, work: str, found: re.Match[str] | None) -> QueueName | None:
    service = name.partition(".")[0]
    if found is not None and found["work"] and ROLES[work.split(".")[1]] != "requests":
        return QueueName(name=name, service=service, role="dead", work_queue=work)
    if name == unroutable_queue(service) and PART.fullmatch(service):
        return QueueName(name=name, service=service, role="dead")
    return None


def service_queues(service: str) -> tuple[str, ...]:
    """The names that any service may have, whatever it serves."""
    return (*(retry_tier(service, tier) for tier in RETRY_DELAYS), unroutable_queue(service))
