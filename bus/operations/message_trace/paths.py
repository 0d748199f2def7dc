"""The path of one message through each of its queues, and the state of this path."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bus.messaging.topology.names import RETRY_DELAYS, SOURCES, routing_key_of
from bus.operations.message_trace.model import Action, Death, QueuePath, State
from bus.operations.queue_inspection import QueueStatus

__all__ = ["find_paths", "is_request"]

ENDS_OF_ATTEMPT = frozenset({"retried", "dead-lettered"})
"""Actions that follow a failed attempt, and that have its outcome."""
REFUSED = "refused"
STATES: Mapping[str, State] = {
    "running": "running",
    "retried": "waiting",
    "dead-lettered": "dead-lettered",
    "refused": "refused",
}
"""State after an action that has only one meaning."""


def find_paths(
    type_: str,
    sent: Sequence[Action],
    received: Mapping[str, Sequence[Action]],
    deaths: Mapping[str, Death],
    *,
    queues: Sequence[QueueStatus] | None,
    now: int,
) -> tuple[QueuePath, ...]:
    """Return the paths of a message, sorted by queue.

    Args:
        type_: Type of the message.
        sent: Actions of the sender.
        received: Actions of the receivers by queue.
        deaths: Dead letters of the message by work queue.
        queues: State of all queues. None if it is unknown.
        now: Time in milliseconds since the epoch.
    """
    known = {queue.name: queue for queue in queues or ()}
    names = {*received, *deaths}
    is_refused = not names and bool(sent) and sent[-1].outcome != "ok"
    is_answered = bool(sent) and is_request(type_, queues or ())
    if not is_refused and not is_answered:
        names |= {*find_targets(type_, queues or ())}
    return tuple(
        build_path(
            name, merge_attempts(received.get(name, ())), deaths.get(name), known.get(name), now=now
        )
        for name in sorted(names)
    )


def find_targets(type_: str, queues: Sequence[QueueStatus]) -> Iterator[str]:
    """Yield the existing work queues that receive messages of this type."""
    for queue in queues:
        if queue.exists and queue.role in SOURCES and routing_key_of(queue.name) == type_:
            yield queue.name


def is_request(type_: str, queues: Sequence[QueueStatus]) -> bool:
    """Return True if messages of this type are requests, because a queue for them exists."""
    return any(
        queue.role == "requests" and queue.exists and routing_key_of(queue.name) == type_
        for queue in queues
    )


def merge_attempts(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Return the actions by time. A failed attempt and its retry or dead letter are one action.

    The merged action begins with the attempt, and ends when the broker has confirmed the copy.
    """
    failed = {
        (action.instance, action.attempt): action
        for action in actions
        if action.action == "handled" and action.outcome != "ok"
    }
    merged = []
    for action in actions:
        attempt = failed.get((action.instance, action.attempt))
        if action.action in ENDS_OF_ATTEMPT and attempt is not None and attempt.at <= action.at:
            seconds = (action.ended - attempt.at) / 1000
            lost = attempt.lost_deliveries
            merged.append(replace(action, at=attempt.at, seconds=seconds, lost_deliveries=lost))
            failed.pop((action.instance, action.attempt))
        elif action.action != "handled" or action.outcome == "ok":
            merged.append(action)
    merged += failed.values()
    return tuple(sorted(merged, key=lambda action: (action.ended, action.attempt)))


def build_path(
    name: str,
    actions: tuple[Action, ...],
    death: Death | None,
    queue: QueueStatus | None,
    *,
    now: int,
) -> QueuePath:
    """Return the path through one queue."""
    last = find_last(actions)
    state = find_state(last, death, queue)
    tier, returns_at = find_return(last) if last and state == "waiting" else (None, None)
    if returns_at is None or returns_at <= now:
        tier = returns_at = None
    return QueuePath(
        queue=name,
        state=state if returns_at is None else "retrying",
        actions=actions,
        death=death,
        tier=tier,
        returns_at=returns_at,
        ready=queue.ready if queue else None,
        consumers=queue.consumers if queue else None,
    )


def find_last(actions: Sequence[Action]) -> Action | None:
    """Return the last action that decides the state.

    A refused message can be a forgery with the id of a genuine message. So it decides only if the
    queue has no other action.
    """
    accepted = [action for action in actions if action.action != REFUSED]
    return next(reversed(accepted or actions), None)


def find_return(last: Action) -> tuple[str | None, int | None]:
    """Return the retry tier of a message, and its time of return in milliseconds."""
    if last.action != "retried" or last.tier is None or last.tier not in RETRY_DELAYS:
        return None, None
    return last.tier, last.ended + int(RETRY_DELAYS[last.tier] * 1000)


def find_state(last: Action | None, death: Death | None, queue: QueueStatus | None) -> State:
    """Return the state of a path. A message in a retry tier counts as waiting.

    Args:
        last: Last action of a receiver.
        death: Dead letter of the message. An action after the dead letter belongs to its replay.
        queue: State of the queue.
    """
    if death is not None and is_last(death, last):
        return "dead"
    if last is None:
        holds = queue is not None and bool(queue.ready or queue.unacked)
        return "waiting" if holds else "unknown"
    if last.action == "handled":
        return "handled" if last.outcome == "ok" else "failed"
    return STATES.get(last.action, "unknown")


def is_last(death: Death, last: Action | None) -> bool:
    """Return True if no action followed the dead letter."""
    return last is None or last.action == "dead-lettered" or death.at is None or last.at <= death.at
