"""Decisions about the next step for each old object: unbind, wait, delete or keep.

The functions are pure: they do not call the broker. `bus.operations.topology.prune` executes the
decisions and observes the broker again, until no decision is left to execute. The decisions depend
only on the state of the broker, so a new run continues an interrupted run.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from bus.messaging.plurals import count_noun
from bus.messaging.topology.model import Binding, QueueRole
from bus.messaging.topology.names import (
    DEAD,
    SOURCES,
    queue_prefix,
    retry_return_exchange,
)
from bus.operations.topology.old_objects import OldObjects, OldQueue
from bus.operations.topology.prune_model import (
    BOUND_AGAIN,
    QUIET_SECONDS,
    UNBOUND_SECONDS,
    Decision,
    Observation,
    QueueObservation,
    bindings_of,
    remove_quiet,
    why_wait,
)
from bus.operations.topology.prune_work_queues import decide_requests, decide_work

__all__ = ["decide", "forecast"]

WORK: tuple[QueueRole, ...] = ("jobs", "events")


def decide(
    old: OldObjects, seen: Observation, even_if_used: Collection[str] = ()
) -> tuple[Decision, ...]:
    """Return the next step for each old object that exists.

    Args:
        old: The old objects.
        seen: The state of their queues. A queue that is not in `seen` does not exist.
        even_if_used: Queues to unbind although they have consumers or messages.
    """
    decisions: dict[str, Decision] = {}
    for queue in old.queues:
        if queue.name in seen:
            decisions[queue.name] = _decide_queue(queue, old, seen, decisions, even_if_used)
    return (*decisions.values(), *_decide_exchanges(old, seen, decisions))


def forecast(
    old: OldObjects, seen: Observation, even_if_used: Collection[str] = ()
) -> tuple[Decision, ...]:
    """Return all steps that a run would execute now, and the objects for which it would wait.

    The forecast assumes that no message is in flight and that nothing else changes.
    """
    expected = {
        name: replace(
            state,
            empty_for=0 if state.messages else QUIET_SECONDS,
            quiet_for=0 if state.messages or state.consumers else QUIET_SECONDS,
            unbound_for=0 if state.messages or state.consumers else UNBOUND_SECONDS,
        )
        for name, state in seen.items()
    }
    exchanges, steps = old.exchanges, list[Decision]()
    while True:
        decisions = decide(replace(old, exchanges=exchanges), expected, even_if_used)
        due = [each for each in decisions if each.action in {"bind", "unbind", "delete"}]
        steps += due
        if not due:
            return (*steps, *decisions)
        for decision in due:
            if decision.what == "exchange":
                exchanges = tuple(each for each in exchanges if each.name != decision.name)
            elif decision.action == "delete":
                expected.pop(decision.name)
            else:
                queue, changed = expected[decision.name], frozenset(decision.bindings)
                own = (
                    queue.bindings | changed
                    if decision.action == "bind"
                    else queue.bindings - changed
                )
                expected[decision.name] = replace(queue, bindings=own)


def _decide_queue(
    queue: OldQueue,
    old: OldObjects,
    seen: Observation,
    earlier: Mapping[str, Decision],
    even_if_used: Collection[str],
) -> Decision:
    step = Decision(action="delete", what="queue", name=queue.name)
    reason = _find_foreign_use(queue, seen[queue.name])
    if reason:
        return replace(step, action="keep", detail=reason)
    is_forced = queue.name in even_if_used
    match queue.role:
        case "requests":
            return decide_requests(step, seen[queue.name], is_forced=is_forced)
        case "retry":
            return _decide_tier(step, queue, seen, earlier)
        case "dead":
            return _decide_dead(step, queue, seen, earlier)
        case _:
            return decide_work(step, queue, old, seen, is_forced=is_forced)


def _find_foreign_use(queue: OldQueue, state: QueueObservation) -> str | None:
    """Return the reason why an operator must act before the bus touches the queue, or None."""
    if queue.is_migrating:
        return (
            "its migration was interrupted. Finish it by `bus topology migrate`, with the code "
            "that requires the queue."
        )
    own = {SOURCES.get(queue.role), DEAD, queue.name, retry_return_exchange(queue.service)}
    for exchange in sorted({binding.exchange for binding in state.bindings} - own):
        return (
            f"it is bound to the exchange {exchange}, but not by the bus. Remove this binding, "
            "if no program needs it."
        )
    return None


def _decide_dead(
    step: Decision, queue: OldQueue, seen: Observation, earlier: Mapping[str, Decision]
) -> Decision:
    """Decide about a dead-letter queue, or about the queue for unroutable messages."""
    state = seen[queue.name]
    needed_by = (
        [queue.work_queue]
        if queue.work_queue
        else [name for name in earlier if name.startswith(f"{queue.service}.")]
    )
    if state.messages and not (queue.work_queue and queue.work_queue in seen):
        where = f"--queue {queue.work_queue}" if queue.work_queue else f"--service {queue.service}"
        detail = (
            f"its {count_noun(state.messages, 'dead letter')} must be replayed or deleted first. "
            f"List them with `bus dead list {where}`."
        )
        return replace(step, action="keep", detail=detail)
    return _decide_needed(step, needed_by, seen, earlier) or _decide_quiet(step, state)


def _decide_tier(
    step: Decision, queue: OldQueue, seen: Observation, earlier: Mapping[str, Decision]
) -> Decision:
    """Decide about a retry tier. Its messages leave it by themselves."""
    state = seen[queue.name]
    work_queues = [
        name
        for name in earlier
        if name.startswith(tuple(queue_prefix(queue.service, role) for role in WORK))
    ]
    needed = _decide_needed(step, work_queues, seen, earlier)
    sources = bindings_of(state, queue.name)
    if needed and not sources:
        # A run was killed, or a worker has started after the removal of the binding.
        own = (Binding(exchange=queue.name, queue=queue.name),)
        return replace(step, action="bind", bindings=own)
    if needed:
        return needed
    if state.messages:
        detail = f"{count_noun(state.messages, 'message')} must leave it, within {queue.tier}"
        return replace(step, action="wait", detail=detail)
    if sources and state.removed:
        return replace(step, action="keep", detail=BOUND_AGAIN)
    quiet = _decide_quiet(step, state)
    if quiet.action == "wait":
        return quiet
    return remove_quiet(step, state, sources)


def _decide_exchanges(
    old: OldObjects, seen: Observation, decisions: Mapping[str, Decision]
) -> Iterator[Decision]:
    for exchange in old.exchanges:
        needed_by = [
            queue.name
            for queue in old.queues
            if queue.service == exchange.service
            and queue.role != "requests"
            and exchange.queue in {None, queue.name}
        ]
        step = Decision(action="delete", what="exchange", name=exchange.name)
        yield _decide_needed(step, needed_by, seen, decisions) or step


def _decide_needed(
    step: Decision,
    needed_by: Collection[str],
    seen: Observation,
    decisions: Mapping[str, Decision],
) -> Decision | None:
    """Return the decision about an object that some queues still need. None if they are deleted."""
    left = [decisions[name] for name in needed_by if name in seen]
    if not left:
        return None
    kept = next((each for each in left if each.action == "keep"), None)
    if kept is not None:
        detail = f"queue {kept.name} is kept"
        return replace(step, action="keep", detail=detail, follows=kept.name)
    detail = f"queue {left[0].name} must be deleted first"
    return replace(step, action="wait", detail=detail, follows=left[0].name)


def _decide_quiet(step: Decision, state: QueueObservation) -> Decision:
    reason = why_wait(state)
    return replace(step, action="wait", detail=reason) if reason else step
