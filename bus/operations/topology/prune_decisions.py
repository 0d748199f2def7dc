"""Decisions about the next step for each old object: unbind, wait, delete or keep.

The functions are pure: they do not call the broker. `bus.operations.topology.prune` executes the
decisions and observes the broker again, until no decision is left to execute. The decisions depend
only on the state of the broker, so a new run continues an interrupted run.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from bus.messaging.topology.model import Binding, QueueRole
from bus.messaging.topology.names import (
    DEAD,
    RETRY_DELAYS,
    dead_letter_queue,
    queue_prefix,
    retry_return_exchange,
)
from bus.operations.topology.old_objects import SOURCES, OldObjects, OldQueue
from bus.operations.topology.prune_model import Decision, Observation, QueueObservation

__all__ = ["QUIET_SECONDS", "decide", "forecast"]

QUIET_SECONDS = 6.0
"""Seconds for which a queue must be quiet before it is deleted.

RabbitMQ renews the totals of a quorum queue every 5 s (its `quorum_tick_interval`). Only the totals
include unacked messages, and messages that the broker is dead-lettering.
"""
CHECKING = f"no message may be in flight for {QUIET_SECONDS:g} s"
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
        )
        for name, state in seen.items()
    }
    exchanges, steps = old.exchanges, list[Decision]()
    while True:
        decisions = decide(replace(old, exchanges=exchanges), expected, even_if_used)
        due = [decision for decision in decisions if decision.action in {"unbind", "delete"}]
        steps += due
        if not due:
            return (*steps, *decisions)
        for decision in due:
            if decision.what == "exchange":
                exchanges = tuple(each for each in exchanges if each.name != decision.name)
            elif decision.action == "delete":
                expected.pop(decision.name)
            else:
                queue = expected[decision.name]
                left = queue.bindings.difference(decision.bindings)
                expected[decision.name] = replace(queue, bindings=left)


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
    is_told = queue.name in even_if_used
    match queue.role:
        case "requests":
            return _decide_requests(step, seen[queue.name], is_told=is_told)
        case "retry":
            return _decide_tier(step, queue, seen, earlier)
        case "dead":
            return _decide_dead(step, queue, seen, earlier)
        case _:
            return _decide_work(step, queue, old, seen, is_told=is_told)


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


def _decide_requests(step: Decision, state: QueueObservation, *, is_told: bool) -> Decision:
    """Decide about a request queue.

    A request is worthless after its deadline, so its queue can be deleted with waiting requests.
    The queue stays bound until then, because only the binding shows that the bus created it.
    """
    if state.consumers:
        return _decide_consumed(step, state, is_told=is_told)
    if state.messages and not is_told:
        detail = (
            f"it holds {_count(state.messages, 'request')}, so callers still send this version. "
            f"Change the callers, or use --even-if-used {step.name}."
        )
        return replace(step, action="keep", detail=detail)
    return step


def _decide_work(
    step: Decision, queue: OldQueue, old: OldObjects, seen: Observation, *, is_told: bool
) -> Decision:
    state = seen[queue.name]
    dead = seen.get(dead_letter_queue(queue.name))
    if dead is not None and dead.messages:
        detail = (
            f"{_count(dead.messages, 'dead letter')} of it must be replayed or deleted first. "
            f"List them with `bus dead list --queue {queue.name}`."
        )
        return replace(step, action="keep", detail=detail)
    sources = _bindings_of(state, SOURCES[queue.role])
    if sources and not is_told:
        if state.consumers:
            return _decide_consumed(step, state, is_told=False)
        if state.messages:
            detail = (
                f"it holds {_count(state.messages, 'message')}, so services may still send this "
                "version. Change these services, let a worker with the earlier code handle the "
                f"messages, or use --even-if-used {queue.name}."
            )
            return replace(step, action="keep", detail=detail)
    if sources:
        return replace(step, action="unbind", bindings=sources)
    reason = _why_wait(state) or next(_find_returning(queue, old, seen), None)
    return replace(step, action="wait", detail=reason) if reason else step


def _decide_consumed(step: Decision, state: QueueObservation, *, is_told: bool) -> Decision:
    if is_told:
        return replace(step, action="wait", detail=_why_wait(state) or "")
    detail = (
        f"it has {_count(state.consumers, 'consumer')}, so a worker with the earlier code runs. "
        f"Stop this worker, or use --even-if-used {step.name}."
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
        if state.empty_for >= QUIET_SECONDS or quiet_for >= RETRY_DELAYS[tier] + QUIET_SECONDS:
            continue
        yield (
            f"{_count(state.messages, 'message')} in {name} can return to it within {tier}"
            if state.messages
            else CHECKING
        )


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
            f"its {_count(state.messages, 'dead letter')} must be replayed or deleted first. "
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
    decisions = [earlier[name] for name in work_queues]
    is_idle = all(
        each.follows or each.action == "delete" or each.detail == CHECKING for each in decisions
    )
    if needed and not is_idle:
        return needed
    if state.messages:
        detail = f"{_count(state.messages, 'message')} must leave it, within {queue.tier}"
        return replace(step, action="wait", detail=detail)
    sources = _bindings_of(state, queue.name)
    if sources:
        return replace(step, action="unbind", bindings=sources)
    return needed or _decide_quiet(step, state)


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
    reason = _why_wait(state)
    return replace(step, action="wait", detail=reason) if reason else step


def _bindings_of(state: QueueObservation, exchange: str) -> tuple[Binding, ...]:
    found = [binding for binding in state.bindings if binding.exchange == exchange]
    return tuple(sorted(found, key=lambda binding: binding.routing_key))


def _why_wait(state: QueueObservation) -> str | None:
    """Return the reason why a queue without a source cannot be deleted yet, or None."""
    if state.consumers:
        return f"{_count(state.consumers, 'consumer')} must stop"
    if state.messages:
        return f"{_count(state.messages, 'message')} must be handled by the earlier code"
    return CHECKING if state.quiet_for < QUIET_SECONDS else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
