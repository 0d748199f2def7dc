"""The consumer of a feed: it claims jobs while slots are free, and delivers them."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from bus.errors import Unavailable
from bus.messaging.backoff import backoff
from bus.messaging.failure_location import failure_facts
from bus.messaging.jobs.records import ClaimedJob, JobProgress
from bus.messaging.labels import failure_label
from bus.messaging.ports.transport import Delivery
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.jobs.cancel_sequence import cancel_job
from bus.runtime.jobs.claimed_job_row import ClaimedJobRow
from bus.runtime.jobs.durable_reports import DurableReports
from bus.runtime.jobs.handling import Handling
from bus.runtime.jobs.held_job import AttemptControl, HeldJob
from bus.runtime.jobs.job_measures import JobMeasures
from bus.runtime.jobs.job_progress import StoredProgress
from bus.runtime.jobs.leases import JobLeases
from bus.runtime.jobs.poll_schedule import PollSchedule
from bus.runtime.jobs.store_health import StoreHealth
from bus.runtime.jobs.stored_delivery import StoredDelivery

__all__ = ["GATE_SECONDS", "FeedConsumer"]

log = logging.getLogger("bus.jobs")

GATE_SECONDS = 1.0
"""Maximum seconds until the feed checks again a dependency that is down."""
RETURN_SECONDS = 5.0
"""Maximum seconds of a cancellation to wait for the return of jobs, because the store can be away.

A job that is not returned waits until its lease has expired.
"""

OnDelivery = Callable[[Delivery], None]


class Feed(Protocol):
    """The queue from which a consumer claims jobs."""

    queue: str
    state: EndpointState
    leases: JobLeases
    health: StoreHealth
    reports: DurableReports
    measures: JobMeasures
    schedule: PollSchedule
    in_hand: int

    @property
    def room(self) -> int:
        """Number of jobs that can start now."""
        ...

    @property
    def has_dependency_down(self) -> bool:
        """True if the dependency of the handler is down."""
        ...

    async def claim(self, limit: int) -> Sequence[ClaimedJob]:
        """Claim at most `limit` jobs."""
        ...

    async def report(self, held: HeldJob, progress: JobProgress) -> bool:
        """Store the progress of an attempt. Return False if its token is stale."""
        ...

    def note_room(self) -> None:
        """Let the consumers claim that wait for a free slot."""
        ...

    async def forget(self, consumer: "FeedConsumer") -> None:
        """Remove a consumer that has stopped."""
        ...


class FeedConsumer:
    """A `ConsumerHandle` that claims jobs until it is cancelled."""

    def __init__(self, feed: Feed, prefetch: int, on_delivery: OnDelivery) -> None:
        self._feed, self._prefetch, self._on_delivery = feed, prefetch, on_delivery
        self._in_hand = 0
        self._woken = asyncio.Event()
        self.waits_for_room = False
        """True if there can be more jobs, and no slot is free."""
        self._is_cancelled = False
        self._returns: set[asyncio.Task[object]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to claim jobs."""
        self._task = asyncio.create_task(self._run(), name=f"claims of {self.name}")

    def wake(self) -> None:
        """Look for jobs now, unless there is no room for one."""
        self._woken.set()

    # --- Claims ---

    async def _run(self) -> None:
        feed, failures = self._feed, 0
        while not self._is_cancelled:
            self._woken.clear()
            room = min(feed.room, self._prefetch - self._in_hand)
            self.waits_for_room = room < 1
            if self.waits_for_room:
                await self._wait(GATE_SECONDS if feed.has_dependency_down else None)
                continue
            try:
                claimed = await feed.claim(room)
                for each in claimed:
                    self._deliver(each)
            except Unavailable:  # the health of the store has a line about it
                failures += 1
                await self._wait_cancel(backoff(failures))
                continue
            except UNEXPECTED as error:
                failures += 1
                self._log_bug(error)
                await self._wait_cancel(1 + backoff(failures))
                continue
            failures = 0
            feed.schedule.found(len(claimed))
            if len(claimed) < room:
                await self._wait(feed.schedule.seconds(feed.state.runtime.clock()))
            else:
                await asyncio.sleep(0)  # a probe of a dependency begins in its own task

    async def _wait(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _wait_cancel(self, seconds: float) -> None:
        """Wait although jobs arrive, because the store is away."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while not self._is_cancelled and (rest := ends - loop.time()) > 0:
            self._woken.clear()
            await self._wait(rest)

    def _log_bug(self, error: BaseException) -> None:
        facts = failure_facts(error)
        # log.exception is not used, because a traceback can show confidential values.
        log.error(
            "%s: the claim of jobs failed (%s); the bus tries again",
            self.name,
            failure_label(facts),
            extra={"queue": self.name, **facts},
        )

    # --- Deliveries ---

    def _deliver(self, claimed: ClaimedJob) -> None:
        """Hand a job to the receiver, or let the attempt that runs already use the new token."""
        feed = self._feed
        running = feed.leases.held.get(claimed.attempt_of.key)
        if running is not None:
            running.claimed = claimed  # see `HeldJob`
            return
        state = feed.state
        now = state.runtime.clock()
        envelope = claimed.envelope.replace(received=int(now * 1000), queue=feed.queue)
        delivery = StoredDelivery(envelope, claimed.losses, self._on_done)
        handling = Handling(state.in_flight, delivery)
        held = delivery.held = HeldJob(
            claimed,
            feed.leases,
            StoredProgress(claimed.progress_number, lambda each: feed.report(held, each)),
            feed.measures,
            AttemptControl(
                deliver=self._deliver,
                cancel_handling=handling.cancel,
                begin_cancellation=lambda: self._cancel_job(held, handling, delivery),
            ),
        )
        delivery.row = ClaimedJobRow(held, feed.reports)
        feed.leases.hold(held)
        self._in_hand += 1
        feed.in_hand += 1
        if self._is_cancelled:  # the claim began before the cancellation
            self._start(delivery.requeue(), f"return of {self.name}")
            return
        if envelope.attempt == 1 and not claimed.losses and claimed.life == 1:
            feed.measures.started(envelope, now)
        self._on_delivery(delivery)

    def _on_done(self, delivery: StoredDelivery) -> None:  # noqa: ARG002 - each delivery counts alike
        self._in_hand -= 1
        self._feed.in_hand -= 1
        self._feed.note_room()

    def _start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    def _cancel_job(self, held: HeldJob, handling: Handling, delivery: StoredDelivery) -> None:
        """Begin the cancellation of a job, in a task of its own."""
        grace = self._feed.state.runtime.settings.cancel_grace
        sequence = cancel_job(held, handling, grace=grace, on_given_up=delivery.leave)
        self._feed.leases.start_task(sequence, f"cancellation of {held.attempt.key.id}")

    # --- The methods of ConsumerHandle ---

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self._feed.queue

    @property
    def ready(self) -> bool:
        """True if the consumer claims jobs, and the store was reached by the last call."""
        return self._task is not None and not self._is_cancelled and not self._feed.health.is_away

    @property
    def last_error(self) -> str | None:
        """The reason why the store cannot be reached, or None."""
        return self._feed.health.problem

    async def wait_ready(self) -> None:
        """Wait until the store is available."""
        await self._feed.health.wait_available()

    async def cancel(self) -> None:
        """Stop claiming. A claim that has begun is not interrupted, and its jobs return at once."""
        self._is_cancelled = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._returns:
            await asyncio.wait([*self._returns], timeout=RETURN_SECONDS)

    async def close(self) -> None:
        """Stop claiming. Jobs that still run keep their leases until these expire."""
        self._is_cancelled = True
        self._woken.set()
        tasks = [task for task in (self._task, *self._returns) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._feed.forget(self)
