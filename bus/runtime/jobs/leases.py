"""Leases: one batched renewal for all jobs of this process."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from bus.errors import Unavailable
from bus.messaging.backoff import backoff
from bus.messaging.jobs.records import Attempt, AttemptEnd, CancelRequest, JobKey
from bus.messaging.jobs.states import JobState
from bus.messaging.labels import short_id
from bus.messaging.ports.job_store import JobStore
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.jobs.held_job import HeldJob
from bus.runtime.jobs.store_health import StoreHealth
from bus.runtime.jobs.write_batch import WriteBatch

__all__ = ["RENEWALS_PER_LEASE", "JobLeases"]

log = logging.getLogger("bus.jobs")

CHECK_SECONDS, MIN_CHECK_SECONDS = 1.0, 0.1
"""Maximum and minimum seconds between two reads of the requests to cancel jobs."""
RENEWALS_PER_LEASE = 3
"""Number of renewals within one lease. So one missed renewal changes nothing."""


class JobLeases:
    """The jobs that this process has claimed, the renewals of their leases, and their ends."""

    def __init__(
        self,
        jobs: JobStore,
        health: StoreHealth,
        *,
        worker: str,
        seconds: float,
    ) -> None:
        """Create an object without jobs.

        Args:
            jobs: The store.
            health: Availability of the store.
            worker: Name of this instance, as in its claims.
            seconds: Length of a lease.
        """
        self._worker = worker
        self.seconds = seconds
        """Length of a lease."""
        self.held: dict[JobKey, HeldJob] = {}
        """The jobs of this process."""
        self._jobs, self._health = jobs, health
        self._ends: WriteBatch[AttemptEnd, JobState | None] = WriteBatch(
            jobs.end, health, "ends of jobs"
        )
        self._task: asyncio.Task[None] | None = None
        self._checks: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._holding, self._check_wanted = asyncio.Event(), asyncio.Event()

    def start(self) -> None:
        """Start the renewals."""
        self._task = asyncio.create_task(self._run(), name="leases of jobs")
        self._checks = asyncio.create_task(self._check_requests(), name="cancellations of jobs")

    async def close(self) -> None:
        """Stop the renewals and the writes."""
        for task in filter(None, (self._task, self._checks, *self._tasks)):
            task.cancel()
            await asyncio.wait([task])
        for held in [*self.held.values()]:
            await held.progress.stop()
        await self._ends.close()
        self.held.clear()

    # --- The interface for one job ---

    async def write_end(self, end: AttemptEnd) -> JobState | None:
        """Write the end of an attempt, with the other ends of this turn."""
        return await self._ends.add(end)

    def release(self, held: HeldJob) -> None:
        """Stop renewing the lease of a job."""
        if self.held.get(held.attempt.key) is held:
            del self.held[held.attempt.key]

    def hold(self, held: HeldJob) -> None:
        """Renew the lease of a job from now on."""
        self.held[held.attempt.key] = held
        self._holding.set()

    def note_stale_write(self, held: HeldJob) -> None:
        """Count and log a write that the store has refused."""
        held.measures.stale_write()
        log.warning(
            "job %s in %s: the end of attempt %d was not written, because another attempt has "
            "replaced it",
            short_id(held.attempt.key.id),
            held.claimed.queue,
            held.claimed.envelope.attempt,
            extra=_facts_of(held),
        )

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run the cancellation of a job in a task, until the leases are closed."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- Renewals ---

    async def _run(self) -> None:
        interval, failures = self.seconds / RENEWALS_PER_LEASE, 0
        while True:
            await asyncio.sleep(min(backoff(failures), interval) if failures else interval)
            try:
                async with asyncio.timeout(interval):
                    await self._renew()
                failures = 0
            except Unavailable:  # the health of the store has a line about it
                failures += 1
            except TimeoutError:
                failures += 1
                self._health.note_timeout(interval)
            except UNEXPECTED as error:
                failures += 1
                log.error(  # noqa: TRY400 - a traceback can show confidential values
                    "the leases of %d jobs could not be renewed (%s); the bus tries again",
                    len(self.held),
                    type(error).__name__,
                    extra={"jobs": len(self.held), "error": type(error).__name__},
                )

    # --- Requests to cancel ---

    def check_soon(self) -> None:
        """Look for requests to cancel jobs of this process, after a notification of the store."""
        self._check_wanted.set()

    async def _check_requests(self) -> None:
        """Read the requests every second, and soon after a notification."""
        while True:
            if not self.held:
                self._holding.clear()
                await self._holding.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._check_wanted.wait()
            self._check_wanted.clear()
            if self.held:
                try:
                    await self._read_requests()
                except UNEXPECTED:  # the renewal reports the problem
                    await asyncio.sleep(CHECK_SECONDS)
            await asyncio.sleep(MIN_CHECK_SECONDS)

    async def _read_requests(self) -> None:
        requests = await self._jobs.cancel_requests(self._worker)
        for attempt, request in requests:
            held = self.held.get(attempt.key)
            if held is not None and held.attempt == attempt and not held.is_ending:
                held.request_cancel(request)

    async def _renew(self) -> None:
        attempts = [held.attempt for held in self.held.values()]
        if not attempts:
            return
        renewal = self._jobs.renew(attempts, lease=self.seconds)
        self._apply(attempts, await self._health.call(renewal))

    def _apply(self, attempts: Sequence[Attempt], answers: Sequence[bool | CancelRequest]) -> None:
        for attempt, answer in zip(attempts, answers, strict=True):
            held = self.held.get(attempt.key)
            # The job can have ended, or been claimed again, since the call began.
            if held is None or held.is_ending or held.attempt != attempt:
                continue
            if isinstance(answer, CancelRequest):
                held.request_cancel(answer)
            elif not answer:
                self._lose(held)

    def _lose(self, held: HeldJob) -> None:
        held.measures.lease_lost()
        log.warning(
            "job %s in %s: another process has the lease of attempt %d, so this process cancels "
            "the handler",
            short_id(held.attempt.key.id),
            held.claimed.queue,
            held.claimed.envelope.attempt,
            extra=_facts_of(held),
        )
        held.lose()


def _facts_of(held: HeldJob) -> dict[str, str | int]:
    claimed = held.claimed
    return {
        "message_id": claimed.attempt_of.key.id,
        "submitter": claimed.attempt_of.key.submitter,
        "queue": claimed.queue,
        "attempt": claimed.envelope.attempt,
        "token": claimed.attempt_of.token,
    }
