"""Decisions about old work queues and request queues. The functions are pure."""

from collections.abc import Iterator
from dataclasses import replace

from bus.messaging.plurals import count_noun
from bus.messaging.topology.model import Binding
from bus.messaging.topology.names import RETRY_DELAYS, SOURCES, dead_letter_queue, routing_key_of
from bus.operations.topology.old_objects import OldObjects, OldQueue
from bus.operations.topology.prune_model import (
    BOUND_AGAIN,
    CHECKING,
    QUIET_SECONDS,
    Decision,
    Observation,
    QueueObservation,
    bindings_of,
    is_quiet,
    remove_quiet,
    why_wait,
)

__all__ = ["decide_requests", "decide_work"]


def decide_requests(step: Decision, state: QueueObservation, *, is_forced: bool) -> Decision:
    """Decide about a request queue.

    A request is worthless after its deadline, so its queue can be deleted with waiting requests.
    The queue stays bound until then, because only the binding shows that the bus created it.
    """
    if state.consumers:
        return _decide_consumed(step, state, is_forced=is_forced)
    if state.messages and not is_forced:
        detail = (
            f"it holds {count_noun(state.messages, 'request')}, so callers still send this "
            f"version. Change the callers, or use --even-if-used {step.name}."
        )
        return replace(step, action="keep", detail=detail)
    return step


def decide_work(
    step: Decision, queue: OldQueue, old: OldObjects, seen: Observation, *, is_forced: bool
) -> Decision:
    """Decide about the queue of a job or a subscription.

    Args:
        step: The decision to delete the queue.
        queue: The queue.
        old: All old objects.
        seen: The state of the queues.
        is_forced: True if the queue is unbound although it has consumers or messages.
    """
    state = seen[queue.name]
    sources = bindings_of(state, SOURCES[queue.role])
    if not sources and not is_forced and _is_needed_again(state):
        return replace(step, action="bind", bindings=state.removed or _derive_bindings(queue))
    reason = _find_dead_letters(queue.name, seen)
    if reason:
        return replace(step, action="keep", detail=reason)
    if sources and is_forced:
        return replace(step, action="unbind", bindings=sources)
    kept = _decide_used(step, state) if sources else None
    if kept is not None:
        return kept
    reason = why_wait(state) or next(_find_returning(queue, old, seen), None)
    if reason:
        return replace(step, action="wait", detail=reason)
    return remove_quiet(step, state, sources)


def _find_dead_letters(name: str, seen: Observation) -> str | None:
    """Return the reason to keep a queue that has dead letters, or None if it has none."""
    dead = seen.get(dead_letter_queue(name))
    if dead is None or not dead.messages:
        return None
    return (
        f"{count_noun(dead.messages, 'dead letter')} of it must be replayed or deleted first. "
        f"List them with `bus dead list --queue {name}`."
    )


def _is_needed_again(state: QueueObservation) -> bool:
    """Return True if a queue that is not bound must be bound again.

    A worker can have bound the queue before a run has removed the binding, and consume after that.
    Without the binding, this worker would receive no message. The run can also have been killed
    before it could bind the queue again. A message shows that a service still sends this version,
    if it has arrived after this run has removed the binding.
    """
    return bool(state.consumers or (state.removed and state.messages))


def _derive_bindings(queue: OldQueue) -> tuple[Binding, ...]:
    """Return the binding that an earlier run has removed."""
    key = routing_key_of(queue.name) or ""
    return (Binding(exchange=SOURCES[queue.role], queue=queue.name, routing_key=key),)


def _decide_used(step: Decision, state: QueueObservation) -> Decision | None:
    """Return the decision to keep a bound queue. None if no program seems to use it."""
    if state.consumers:
        return _decide_consumed(step, state, is_forced=False)
    if not state.messages:
        return replace(step, action="keep", detail=BOUND_AGAIN) if state.removed else None
    detail = (
        f"it holds {count_noun(state.messages, 'message')}, so services may still send this "
        "version. Change these services, let a worker with the earlier code handle the messages, "
        f"or use --even-if-used {step.name}."
    )
    return replace(step, action="keep", detail=detail)


def _decide_consumed(step: Decision, state: QueueObservation, *, is_forced: bool) -> Decision:
    if is_forced:
        return replace(step, action="wait", detail=why_wait(state) or "")
    detail = (
        f"it has {count_noun(state.consumers, 'consumer')}, so a worker with the earlier code "
        f"runs. Stop this worker, or use --even-if-used {step.name}."
    )
    return replace(step, action="keep", detail=detail)


def _find_returning(queue: OldQueue, old: OldObjects, seen: Observation) -> Iterator[str]:
    """Yield a reason to wait for each retry tier that can hold a message of the queue.

    Only a consumer of the queue sends its messages to a tier. So the tier holds no such message if
    it was empty after the last consumer had stopped. The same is true when the delay of the tier
    has passed since then.
    """
    quiet_for = seen[queue.name].quiet_for
    for name in old.tiers.get(queue.service, ()):
        tier = name.rpartition(".")[2]
        state = seen.get(name, QueueObservation(empty_for=QUIET_SECONDS))
        if is_quiet(state.empty_for) or is_quiet(quiet_for - RETRY_DELAYS[tier]):
            continue
        yield (
            f"{count_noun(state.messages, 'message')} in {name} can return to it within {tier}"
            if state.messages
            else CHECKING
        )
