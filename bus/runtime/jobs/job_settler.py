"""Settlement of durable jobs: the end of an attempt is written to the row of the job."""

import asyncio
import logging
from contextlib import suppress

from bus.errors import Cancelled, Internal, code_of, error_name, safe_reason
from bus.messaging.backoff import backoff
from bus.messaging.dependency_wait import DEPENDENCY_WAIT, count_of, with_return, with_wait
from bus.messaging.envelope import Envelope, Progress, error_reply
from bus.messaging.failure_location import failure_facts, failure_location
from bus.messaging.fault_record import FIRST_FAILED, since_first_failure, with_attempt
from bus.messaging.jobs.records import CancelRequest, JobFailure, JobKey
from bus.messaging.labels import drop_type, failure_label, message_facts, message_label, one_line
from bus.messaging.ports.transport import Delivery
from bus.messaging.settlement import Ack, MoveToDeadLetters, Retry, decide
from bus.messaging.topology.names import RETRY_DELAYS
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import DependencyReturn, HandlingResult, InboundMessage
from bus.runtime.job_reports import (
    log_unsent_update,
    note_of_retry,
    note_of_wait,
    unsendable_reply,
)
from bus.runtime.jobs.cancel_sequence import error_of_request
from bus.runtime.jobs.held_job import HeldJob
from bus.runtime.jobs.job_feed import JobFeed
from bus.runtime.jobs.stored_delivery import StoredDelivery

__all__ = ["JobSettler"]

log = logging.getLogger("bus.settlement")

MAX_REASON_LENGTH = 1024


class JobSettler:
    """Settles the attempts of one endpoint's durable jobs.

    The end is written first, and then sent to the submitter. An attempt with a stale token sends
    nothing, because another attempt has replaced it.
    """

    def __init__(self, state: EndpointState, feed: JobFeed) -> None:
        self._endpoint, self._runtime = state.endpoint, state.runtime
        self._measures = state.measures
        self._reports, self._feed = feed.reports, feed
        self._stopping = asyncio.Event()

    async def settle(self, message: InboundMessage, result: HandlingResult) -> bool:
        """Write the end of an attempt. Return True, also for an attempt with a stale token."""
        held, error = held_job(message.deliveries[-1]), result.error
        if error is not None:
            if not result.is_counted and self._measures is not None:
                self._measures.refused(message, result)  # a stage rejected it before its handler
            result.is_repeated = message.is_repeated
        envelope = message.envelope
        if await self._settle_at_once(held, message, result):
            return True
        if result.held_seconds:
            envelope = envelope.replace(headers=with_wait(envelope.headers, result.held_seconds))
        match decide(error, envelope.attempt, self._endpoint.retry, lasted=self._lasted(envelope)):
            case Ack():
                await self._succeed(held, envelope, result.reply)
            case Retry(delay=delay):
                await self._retry(held, envelope, result, delay)
            case MoveToDeadLetters() as decision:
                await self._fail(held, envelope, result, decision)
        return True

    async def _settle_at_once(
        self, held: HeldJob, message: InboundMessage, result: HandlingResult
    ) -> bool:
        """Settle an attempt without the retry policy. Return False if the policy must decide."""
        envelope, error = message.envelope, result.error
        if result.is_committed:
            if result.reply is not None:
                await self._reports.report_result(envelope, result.reply, retry=False)
        elif error is not None and held.cancel is not None:
            await self._end_cancelled(held, envelope, error, held.cancel)
        elif result.dependency_return is not None:
            await self._wait_for_dependency(held, envelope, result, result.dependency_return)
        else:
            return False
        return True

    async def abandon(
        self, message: InboundMessage, result: HandlingResult, cause: BaseException
    ) -> bool:
        """End a job after a failed `settle`. Its result, if it has one, is replaced by an error.

        Args:
            message: The message that `settle` could not settle.
            result: The result of its handling.
            cause: The unexpected exception of `settle`.
        """
        held, envelope = held_job(message.deliveries[-1]), message.envelope
        if result.error is None:
            fault = unsendable_reply(envelope, cause, source=self._runtime.service)
            if await held.end("succeeded", result=fault) is not None:
                await self._reports.report_result(envelope, fault, retry=False)
            return True
        reason = (
            f"{error_name(result.error)}: the message could not be settled, because of "
            f"{type(cause).__name__}"
        )
        decision = MoveToDeadLetters(code=Internal.code, reason=reason)
        await self._fail(held, envelope, HandlingResult(error=Internal(), has_run=True), decision)
        return True

    async def wait_before_retry(self, attempt: int) -> bool:
        """Wait 1 to 2 s before another try. Return False at once if the service is stopping."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), 1 + backoff(attempt))
        return not self._stopping.is_set()

    def stop_retrying(self) -> None:
        """Stop retrying, because the service is stopping."""
        self._stopping.set()

    async def close(self) -> None:
        """Do nothing: no work continues after a settlement."""

    # --- Ends ---

    async def _succeed(self, held: HeldJob, job: Envelope, reply: Envelope | None) -> None:
        stored = None if reply is None else self._reports.stored(reply)
        await held.progress.flush()
        if await held.end("succeeded", result=stored) is not None and reply is not None:
            await self._reports.report_result(job, reply, retry=False)

    async def _fail(
        self, held: HeldJob, job: Envelope, result: HandlingResult, decision: MoveToDeadLetters
    ) -> None:
        error = result.error or Cancelled()
        update = self._error_update(job, result)
        failure = _failure_of(error, decision.code, decision.reason)
        await held.progress.flush()
        written = await held.end("failed", result=self._reports.stored(update), failure=failure)
        if written != "failed":  # refused, or cancelled by a request that was not known here
            await self._after_wait(job, result, written, None, 0.0)
            return
        facts = message_facts(
            job, queue=self._endpoint.queue, code=decision.code, why=decision.reason
        ) | failure_facts(error)
        log.error(
            "%s in %s has failed after attempt %d, and its row is kept: %s",
            message_label(job),
            self._endpoint.queue,
            job.attempt,
            failure_label(facts, drop_type(decision.reason, job)),
            extra=facts,
        )
        await self._reports.report_result(job, update, retry=False)

    async def _end_cancelled(
        self, held: HeldJob, job: Envelope, error: BaseException, request: CancelRequest
    ) -> None:
        """End a job that did not succeed after a request to cancel it. It is never retried."""
        cancelled = error_of_request(request)
        update = error_reply(job, cancelled, source=self._runtime.service)
        own = isinstance(error, Cancelled)
        failure = None if own else _failure_of(error, code_of(error), safe_reason(error))
        await held.progress.flush()
        stored = self._reports.stored(update)
        if await held.end("cancelled", result=stored, failure=failure) is None:
            return
        log.info(
            "%s in %s was cancelled in attempt %d by %s",
            message_label(job),
            self._endpoint.queue,
            job.attempt,
            one_line(request.by),
            extra=message_facts(job, queue=self._endpoint.queue, by=request.by),
        )
        await self._reports.report_result(job, update, retry=False)

    async def _retry(
        self, held: HeldJob, job: Envelope, result: HandlingResult, delay: float
    ) -> None:
        error, now = result.error or Cancelled(), self._now()
        note = note_of_retry(job, error, self._endpoint.retry, delay)
        update = await self._store_note(held, job, note)
        run_at = now / 1000 + delay
        written = await held.end(
            "retrying",
            run_at=run_at,
            failure=_failure_of(error, code_of(error), safe_reason(error)),
            headers=with_attempt(since_first_failure(job.headers, now), result.traceparent),
        )
        await self._after_wait(job, result, written, update, run_at)

    async def _wait_for_dependency(
        self, held: HeldJob, job: Envelope, result: HandlingResult, decision: DependencyReturn
    ) -> None:
        """Return a job without an attempt, until its dependency can be tried again."""
        seconds, now = RETRY_DELAYS[decision.tier], self._now()
        here = 0.0 if job.received is None else max(0.0, (now - job.received) / 1000)
        update = None
        if decision.is_reported and result.error is not None:
            note = note_of_wait(decision.dependency, result.error)
            update = await self._store_note(held, job, note)
        else:
            await held.progress.flush()
        run_at = now / 1000 + seconds
        written = await held.end(
            "queued",
            run_at=run_at,
            headers=with_return(
                job.headers, waited=here + seconds, is_failure_counted=decision.is_failure_counted
            ),
        )
        await self._after_wait(job, result, written, update, run_at)

    async def _store_note(self, held: HeldJob, job: Envelope, note: Progress) -> Progress | None:
        update = self._reports.add_progress(held, job, note)
        await held.progress.flush()
        return update

    async def _after_wait(
        self,
        job: Envelope,
        result: HandlingResult,
        written: str | None,
        update: Progress | None,
        run_at: float,
    ) -> None:
        """Report a job that waits for its next attempt, or that was cancelled instead."""
        if written is None:
            return
        if written == "cancelled":
            request = await self._feed.cancel_request_of(JobKey(job.source, job.id))
            unknown = Cancelled("the job was cancelled")
            cancelled = unknown if request is None else error_of_request(request)
            reply = error_reply(job, cancelled, source=self._runtime.service)
            await self._reports.report_result(job, reply, retry=False)
            return
        self._feed.wake_at(run_at)
        if self._measures is not None:
            self._measures.retried(job, result, None)
        try:
            await self._reports.send_progress(job, update)
        except Exception as unexpected:  # noqa: BLE001 - the end is written already
            log_unsent_update(job, unexpected)

    # --- Values ---

    def _error_update(self, job: Envelope, result: HandlingResult) -> Envelope:
        return error_reply(
            job,
            result.error or Cancelled(),
            source=self._runtime.service,
            has_run=result.has_run,
            is_repeated=result.is_repeated,
        )

    def _lasted(self, job: Envelope) -> float:
        """Return the seconds since the first failure, without the waits for a dependency."""
        now = self._now()
        first_failed = job.headers.get(FIRST_FAILED, now)
        lasted = (now - first_failed) / 1000 if isinstance(first_failed, int) else 0.0
        return lasted - count_of(job.headers, DEPENDENCY_WAIT) / 1000

    def _now(self) -> int:
        return int(self._runtime.clock() * 1000)


def held_job(delivery: Delivery) -> HeldJob:
    """Return the attempt of a delivery that a feed has made."""
    if not isinstance(delivery, StoredDelivery):
        raise TypeError(f"a durable job must come from its feed, not {type(delivery).__name__}")
    return delivery.held


def _failure_of(error: BaseException, code: str, reason: str) -> JobFailure:
    location = failure_location(error)
    return JobFailure(
        code=code,
        reason=reason[:MAX_REASON_LENGTH],
        location=location and location[:MAX_REASON_LENGTH],
    )
