"""Queue names read back: whose queue it is, and what for. The way there is in `bus.messaging.topology.model`."""

import re
from dataclasses import dataclass

from bus.contracts.contract import PART
from bus.messaging.topology.model import TIERS, Purpose, dead_letter_queue, retry_tier, unroutable_dead

__all__ = ["QueueName", "queue_name", "service_queues"]

VERSIONED = rf"{PART.pattern}(\.{PART.pattern})*\.v\d+"
NAME = re.compile(
    rf"(?P<service>{PART.pattern})\."
    rf"((?P<work>(requests|jobs)\.{VERSIONED}|events\.{VERSIONED}(\.{PART.pattern})?)|replies\.(?P<instance>[\w.-]+)|retry\.(?P<tier>\w+))"
)
DEAD = dead_letter_queue("")
PURPOSES: dict[str, Purpose] = {"requests": "requests", "jobs": "jobs", "events": "events"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueName:
    """What a queue of the bus's topology says by its name."""

    name: str
    service: str
    purpose: Purpose
    work_queue: str | None = None
    """Of a dead-letter queue: the queue whose dead letters it holds; None for those that came back from a tier in vain."""


def queue_name(name: str) -> QueueName | None:
    """What `name` says; None for a queue that is none of the bus's."""
    work = name.removesuffix(DEAD)
    found = NAME.fullmatch(work)
    if work != name:
        return _dead(name, work, found)
    if found is None or (found["tier"] and found["tier"] not in TIERS):
        return None
    kind = name.split(".")[1]
    purpose = PURPOSES.get(kind) or ("replies" if found["instance"] else "retry")
    return QueueName(name=name, service=found["service"], purpose=purpose)


def _dead(name: str, work: str, found: re.Match[str] | None) -> QueueName | None:
    service = name.partition(".")[0]
    if found is not None and found["work"] and PURPOSES[work.split(".")[1]] != "requests":
        return QueueName(name=name, service=service, purpose="dead", work_queue=work)
    if name == unroutable_dead(service) and PART.fullmatch(service):
        return QueueName(name=name, service=service, purpose="dead")
    return None


def service_queues(service: str) -> tuple[str, ...]:
    """The names that any service may have, whatever it serves."""
    return (*(retry_tier(service, tier) for tier in TIERS), unroutable_dead(service))
