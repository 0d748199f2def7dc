"""The feed of one work queue: it claims rows, and delivers them as a transport would."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from math import inf

from bus.errors import Unavailable
from bus.messaging.backoff import backoff
from bus.messaging.jobs.records import CancelRequest, ClaimedJob, JobKey, JobProgress
from bus.messaging.ports.job_store import JobStore
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.jobs.durable_reports import DurableReports
from bus.runtime.jobs.feed_consumer import FeedConsumer, OnDelivery
from bus.runtime.jobs.held_job import HeldJob
from bus.runtime.jobs.job_measures import JobMeasures
from bus.runtime.jobs.leases import JobLeases
from bus.runtime.jobs.poll_schedule import PollSchedule
from bus.runtime.jobs.store_health import StoreHealth

__all__ = ["JobFeed"]

log = logging.getLogger("bus.jobs")

LISTEN_SECONDS = 60.0
"""Seconds of one wait for a notification of the store."""
NOTIFIED_SECONDS = 0.05
"""Minimum seconds between a claim and the next one that only a notification causes."""


class JobFeed:
    """Source of the deliveries of one queue: `EndpointConsumer` uses it instead of a transport."""

    def __init__(
        self, state: EndpointState, jobs: JobStore, leases: JobLeases, health: StoreHealth
    ) -> None:
        self.state, self.jobs, self.leases, self.health = state, jobs, leases, health
        self.reports = DurableReports(state.runtime, leases)
        """The updates to the submitters."""
        self.queue = state.spec.queue.name
        self.measures = JobMeasures(state.endpoint.contract, state.runtime.meter)
        self.schedule = PollSchedule()
        self.in_hand = 0
        """Number of jobs that were claimed, and have not ended in this process."""
        self._consumers: list[FeedConsumer] = []
        self._claimed_at = -inf
        """Start of the last claim, by the loop's clock."""
        self._listener: asyncio.Task[None] | None = None

    async def consume(self, spec: ConsumerSpec, on_delivery: OnDelivery) -> FeedConsumer:
        """Start to claim jobs, at most `spec.prefetch` at a time."""
        consumer = FeedConsumer(self, spec.prefetch, on_delivery)
        self._consumers.append(consumer)
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name=f"changes of {self.queue}")
        consumer.start()
        return consumer

    def wake(self) -> None:
        """Look for jobs now."""
        for consumer in self._consumers:
            consumer.wake()

    def note_room(self) -> None:
        """Let the consumers claim that wait for a free slot. The others found no more jobs."""
        for consumer in self._consumers:
            if consumer.waits_for_room:
                consumer.wake()

    def wake_at(self, due: float) -> None:
        """Look for jobs at a time, in seconds since the epoch."""
        self.schedule.add(due)
        self.wake()

    async def forget(self, consumer: FeedConsumer) -> None:
        """Remove a consumer that has stopped. The last one also ends the listening."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        listener = self._listener
        if not self._consumers and listener is not None:
            self._listener = None
            listener.cancel()
            await asyncio.wait([listener])

    async def _listen(self) -> None:
        """Wake the consumers after each notification of the store, if it sends any."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            try:
                has_changed = await self.jobs.changed(self.queue, timeout=LISTEN_SECONDS)
            except UNEXPECTED:  # polling finds the jobs, and reports the problem
                failures += 1
                await asyncio.sleep(backoff(failures))
                continue
            failures = 0
            if has_changed:
                self.schedule.is_notified = True
                self.leases.check_soon()
                self._note_change()
            elif loop.time() - began < LISTEN_SECONDS / 2:
                return  # the store has no notifications

    def _note_change(self) -> None:
        """Claim soon, unless a claim begins before. This process causes most notifications itself.

        A claim covers each change that was notified before it began.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = self._claimed_at + NOTIFIED_SECONDS - now
        if wait <= 0:
            self.wake()
        else:
            loop.call_later(wait, self._wake_if_unclaimed, now)

    def _wake_if_unclaimed(self, since: float) -> None:
        if self._claimed_at <= since:
            self.wake()

    @property
    def room(self) -> int:
        """Number of jobs that can start now: free slots without the jobs in hand.

        While the dependency of the handler is down, one job at a time tries it.
        """
        room = self.state.slots.limit - self.in_hand
        gate = self.state.dependency
        if gate is None:
            return room
        return 0 if gate.is_paused else min(room, 1) if gate.is_open else room

    @property
    def has_dependency_down(self) -> bool:
        """True if the dependency of the handler is down."""
        gate = self.state.dependency
        return gate is not None and gate.is_open

    async def claim(self, limit: int) -> Sequence[ClaimedJob]:
        """Claim at most `limit` jobs."""
        self._claimed_at = asyncio.get_running_loop().time()
        claim = self.jobs.claim(
            self.queue,
            worker=self.state.runtime.instance,
            limit=limit,
            lease=self.leases.seconds,
        )
        return await self.health.call(claim)

    async def cancel_request_of(self, key: JobKey) -> CancelRequest | None:
        """Return the request that has cancelled a job. None if it cannot be read now."""
        with suppress(Unavailable):
            record = await self.health.call(self.jobs.find(key))
            return None if record is None else record.cancel
        return None

    async def report(self, held: HeldJob, progress: JobProgress) -> bool:
        """Store the progress of an attempt. Return False if its token is stale."""
        attempt = held.attempt
        is_current = await self.health.call(self.jobs.report(attempt, progress))
        if not is_current and held.attempt == attempt and not held.is_lost:
            held.measures.stale_write()
        return is_current
