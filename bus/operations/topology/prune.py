"""Deletion of the queues and exchanges that the routers of a service do not declare any more.

1. Wait until a work queue, its retry tiers and its dead letters are empty and have no consumers.
2. Unbind the queue, so that it receives no new message.
3. Wait for a short time. If a worker or a message comes, bind the queue again.
4. Delete the queue, and then its dead-letter queue.

Each pass reads the state of the broker, decides the steps and executes them. So a new run continues
an interrupted run, and two runs at the same time do no harm.

A worker can start at any moment, and it would receive no message without its binding. So the end of
a run binds each queue again that it has unbound and not deleted, also after an error or Ctrl-C.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from bus.errors import NotFound
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.model import Binding
from bus.messaging.topology.names import SOURCES
from bus.operations.topology.broker_state import queue_bindings, queue_totals, read_broker_state
from bus.operations.topology.old_objects import OldObjects, OldQueue, find_old
from bus.operations.topology.prune_decisions import decide, forecast
from bus.operations.topology.prune_model import Decision, Observation, QueueObservation
from bus.operations.topology.prune_restore import UnboundQueues
from bus.operations.topology.required import RequiredTopology
from bus.settings import Settings
from bus.transports.rabbitmq.admin import AdminSession, open_admin_session

__all__ = ["PruneOptions", "PruneResult", "prune"]

POLL_INTERVAL_SECONDS = 1.0
"""Seconds between two passes."""
UNBOUND_POLL_INTERVAL_SECONDS = 0.1
"""Seconds between two passes while a queue is unbound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """Options of a run."""

    timeout: float = 60.0
    """Maximum seconds to wait for messages and consumers."""
    even_if_used: tuple[str, ...] = ()
    """Queues to unbind although they have consumers or messages."""
    dry_run: bool = False
    """True to report the steps, and to execute none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """The steps of a run, and the objects that are left."""

    steps: tuple[Decision, ...] = ()
    """Executed steps `bind`, `unbind` and `delete`. With `dry_run`, the steps that a run would
    execute."""
    left: tuple[Decision, ...] = ()
    """Old objects that were not deleted: `keep`, or `wait` if the time was over."""
    foreign: tuple[str, ...] = ()
    """Queues with a name of these services that the bus did not create."""


async def prune(
    required: RequiredTopology,
    settings: Settings,
    options: PruneOptions,
    report: Callable[[Decision], None] = lambda _: None,
) -> PruneResult:
    """Delete the objects of the services in `required` that their routers do not declare.

    A message is never deleted on purpose, except a waiting request in a queue of
    `options.even_if_used`.

    Args:
        required: The topology that the routers declare. Only its services are pruned.
        settings: The settings with the broker's address.
        options: The options of this run.
        report: Function that is called with each executed step, and with each new reason to wait.
            The last calls are about queues that are bound again.

    Raises:
        NotFound: A queue of `options.even_if_used` is not an old queue.
        FailedPrecondition: `bus watch` receives the jobs of an old queue.
        PermissionDenied: The user may not unbind or delete an object.
        DataLoss: A quorum queue received messages in the moment of its deletion; see `delete_idle`.
        BusError: The broker cannot be read; see `read_broker_state`.
    """
    state = await read_broker_state(settings)
    old = find_old(required, state)
    _check_names(options.even_if_used, old)
    async with open_admin_session(settings) as broker:
        run = PruneRun(broker, old, settings, options, report)
        if options.dry_run:
            steps = forecast(old, await run.observe(), options.even_if_used)
            return PruneResult(
                steps=_select(steps, "bind", "unbind", "delete"),
                left=_select(steps, "wait", "keep"),
                foreign=old.foreign,
            )
        left = await run.finish()
    return PruneResult(steps=tuple(run.steps), left=left, foreign=old.foreign)


def _check_names(names: Collection[str], old: OldObjects) -> None:
    candidates = [queue.name for queue in old.queues if queue.role in SOURCES]
    for name in names:
        if name not in candidates:
            hint = did_you_mean(name, candidates) or (
                f"; the old work queues: {', '.join(candidates) or 'none'}"
            )
            raise NotFound(f"queue {name!r} is not an old work queue of these services{hint}")


def _select(decisions: Sequence[Decision], *actions: str) -> tuple[Decision, ...]:
    return tuple(decision for decision in decisions if decision.action in actions)


@dataclass(slots=True)
class Periods:
    """Times since which a condition has been true for queues, without a break."""

    since: dict[str, float] = field(default_factory=dict)

    def observe(self, name: str, now: float, *, is_true: bool) -> float:
        """Record the condition of a queue, and return the seconds for which it has been true."""
        if not is_true:
            self.since.pop(name, None)
            return 0.0
        return now - self.since.setdefault(name, now)


class PruneRun:
    """One run for the old objects of some services."""

    def __init__(
        self,
        broker: AdminSession,
        old: OldObjects,
        settings: Settings,
        options: PruneOptions,
        report: Callable[[Decision], None],
    ) -> None:
        self._broker = broker
        self._old = old
        self._settings = settings
        self._options = options
        self._report = report
        self._queues = {queue.name: queue for queue in old.queues}
        self._empty, self._quiet, self._unbound = Periods(), Periods(), Periods()
        self._reported: set[Decision] = set()
        self._removed: dict[str, tuple[Binding, ...]] = {}
        self._unbound_queues = UnboundQueues(broker)
        self._bound: set[str] = set()
        self.steps: list[Decision] = []

    async def observe(self) -> Observation:
        """Return the state of the old queues, and of the retry tiers of their services."""
        bindings = await queue_bindings(self._settings)
        totals = await queue_totals(self._settings)
        tiers = (name for names in self._old.tiers.values() for name in names)
        seen: dict[str, QueueObservation] = {}
        for name in dict.fromkeys((*self._queues, *tiers)):
            depth = await self._broker.depth(name)
            if depth is None:
                continue
            messages = max(depth.ready, totals.get(name, 0))
            own = frozenset(binding for binding in bindings if binding.queue == name)
            is_empty, now = not messages, self._now()
            is_quiet = is_empty and not depth.consumers
            is_unbound = is_quiet and not self._sources(name, own)
            seen[name] = QueueObservation(
                messages=messages,
                consumers=depth.consumers,
                bindings=own,
                removed=self._removed.get(name, ()),
                empty_for=self._empty.observe(name, now, is_true=is_empty),
                quiet_for=self._quiet.observe(name, now, is_true=is_quiet),
                unbound_for=self._unbound.observe(name, now, is_true=is_unbound),
            )
        return seen

    def _sources(self, name: str, bindings: Collection[Binding]) -> list[Binding]:
        """Return the bindings through which services send messages to an old queue."""
        queue = self._queues.get(name)
        if queue is None or queue.role == "dead":
            return []
        source = SOURCES.get(queue.role, name)  # a retry tier and its exchange have the same name
        return [binding for binding in bindings if binding.exchange == source]

    async def finish(self) -> tuple[Decision, ...]:
        """Execute the steps until none is left or the time is over. Return what is left.

        At the end, also after an error or a cancellation, bind the queues again that this run has
        unbound and not deleted. A queue of `even_if_used` stays unbound.
        """
        try:
            return await self._execute_all()
        finally:
            for each in await self._unbound_queues.restore():
                if each.action == "bind":
                    self._forget(each)
                self._report(each)

    async def _execute_all(self) -> tuple[Decision, ...]:
        ends = self._now() + self._options.timeout
        while True:
            decisions = decide(self._old, await self.observe(), self._options.even_if_used)
            known = len(self.steps)
            for step in _select(decisions, "bind", "unbind", "delete"):
                await self._execute(step)
            if len(self.steps) != known:
                continue  # other steps may be possible now
            for reason in _select(decisions, "wait"):
                if not reason.follows:
                    self._report_once(reason)
            left = tuple(self._describe_left(decision) for decision in decisions)
            if not _select(left, "wait", "bind", "unbind", "delete") or self._now() >= ends:
                return left
            await asyncio.sleep(
                UNBOUND_POLL_INTERVAL_SECONDS if self._unbound_queues else POLL_INTERVAL_SECONDS
            )

    def _forget(self, step: Decision) -> None:
        """Remove a step `unbind` that `step` has reverted.

        A binding that an earlier run had removed is a step of this run.
        """
        unbound = [each for each in self.steps if each.bindings == step.bindings]
        self.steps = [each for each in self.steps if each not in unbound]
        if not unbound:
            self.steps.append(step)

    async def _execute(self, step: Decision) -> None:
        """Execute a step, unless a program uses the object again.

        A program can also bind a queue again. So a binding can be removed more than once.
        """
        if step.action == "bind":
            await self._broker.bind(step.bindings)
            self._unbound_queues.discard(step.name)
            self._forget(step)
            self._report(step)
            return
        if step.action == "unbind":
            # Before the call: after an interruption, the broker can have removed the binding.
            self._removed[step.name] = step.bindings
            if step.name not in self._options.even_if_used:
                self._unbound_queues.add(step)
            await self._broker.unbind(step.bindings)
        elif step.what == "exchange":
            if step.name in self._bound or not await self._broker.delete_exchange(step.name):
                self._bound.add(step.name)
                return
            left = tuple(each for each in self._old.exchanges if each.name != step.name)
            self._old = replace(self._old, exchanges=left)
        elif not await self._delete(self._queues[step.name]):
            return
        else:
            self._unbound_queues.discard(step.name)
        if step not in self.steps:
            self.steps.append(step)
        self._report_once(step)

    def _describe_left(self, decision: Decision) -> Decision:
        """Return the decision about an object that is left after a pass."""
        if decision.name in self._bound and decision.what == "exchange":
            detail = "something is bound to it. Remove these bindings, if no program needs them."
            return replace(decision, action="keep", detail=detail)
        if decision.action == "unbind":
            source = decision.bindings[0].exchange
            detail = f"it is still bound to {source}, because a program binds it again"
            return replace(decision, action="wait", detail=detail, bindings=())
        return decision

    async def _delete(self, queue: OldQueue) -> bool:
        """Delete a queue. Return False if a worker uses the queue again."""
        if queue.role == "requests":
            return await self._broker.delete_idle(
                queue.name,
                is_quorum=queue.is_quorum,
                if_empty=queue.name not in self._options.even_if_used,
            )
        # A worker that starts now binds the queue before it consumes.
        own = [each for each in await queue_bindings(self._settings) if each.queue == queue.name]
        return not self._sources(queue.name, own) and await self._broker.delete_idle(
            queue.name, is_quorum=queue.is_quorum
        )

    def _report_once(self, decision: Decision) -> None:
        if decision not in self._reported:
            self._reported.add(decision)
            self._report(decision)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
