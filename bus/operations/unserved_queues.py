"""The queues of a running service that none of its workers consumes.

The functions are pure: they do not call the broker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bus.messaging.topology.names import split_version
from bus.operations.queue_inspection import QueueStatus

__all__ = ["UnservedQueue", "find_unserved"]

CONSUMED = ("requests", "jobs", "events")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnservedQueue:
    """A queue without consumers, although other queues of its service have consumers."""

    name: str
    newer: str | None = None
    """Queue of the newest version of the same contract that has consumers. None if no such queue
    exists."""


def find_unserved(queues: Sequence[QueueStatus]) -> dict[str, UnservedQueue]:
    """Return the queues that no worker consumes although their service runs, by their names.

    The queues of a service without any consumer are not included: the service is down. A request
    queue is included only if a newer version has consumers. Without its service, a request queue
    expires.
    """
    work = [queue for queue in queues if queue.role in CONSUMED and queue.exists]
    running = {queue.service for queue in work if queue.consumers}
    found: dict[str, UnservedQueue] = {}
    for queue in work:
        if queue.consumers != 0 or queue.last_error or queue.service not in running:
            continue
        newer = _newest_consumed(queue, work)
        if newer is not None or queue.role != "requests":
            found[queue.name] = UnservedQueue(name=queue.name, newer=newer)
    return found


def _newest_consumed(old: QueueStatus, work: Sequence[QueueStatus]) -> str | None:
    """Return the queue of the newest version that has consumers and is newer than `old`."""
    own = split_version(old.name)
    if own is None:
        return None
    versions = {
        version[1]: queue.name
        for queue in work
        if queue.consumers
        and (version := split_version(queue.name)) is not None
        and version[0] == own[0]
        and version[1] > own[1]
    }
    return versions[max(versions)] if versions else None
