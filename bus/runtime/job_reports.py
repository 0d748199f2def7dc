"""The updates that a worker sends to the submitter of a job: progress, result or failure."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import (
    BusError,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    code_of,
    safe_reason,
)
from bus.messaging.backoff import backoff
from bus.messaging.cancellation import Cancellation
from bus.messaging.envelope import Envelope, Progress, error_reply, progress_update
from bus.messaging.labels import message_facts, message_label, one_line
from bus.messaging.ports.transport import Accepted
from bus.messaging.timers import format_seconds
from bus.messaging.topology.addresses import update_address
from bus.messaging.topology.names import RETRY_DELAYS, retry_delay_for
from bus.runtime.failure_log import log_failure
from bus.runtime.life_cycle import error_in_other_loop
from bus.runtime.service_runtime import ServiceRuntime

__all__ = [
    "MAX_PENDING_RESULTS",
    "RESULT_TASK",
    "JobReports",
    "ProgressReporter",
    "log_unsent_update",
    "note_of_retry",
    "note_of_wait",
    "unsendable_reply",
]

log = logging.getLogger("bus.settlement")

SEND_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for the confirm of a result."""
PROGRESS_TIMEOUT_SECONDS = 0.5
"""Seconds to wait for the confirm of a progress update. Progress updates must not delay the job."""
RESULT_RETRY_SECONDS = 30.0
"""Seconds to retry a result if its submitter is not connected. The submitter can reconnect within
this time."""
MAX_PENDING_RESULTS = 100
"""The maximum number of results that are retried at a time. The maximum limits the memory that a
worker uses for submitters that do not reconnect."""
RESULT_TASK = "result of job "
"""The name of a task that retries a result, before the job's id. Test kits find the task by it."""

ProgressReporter = Callable[[Progress], Coroutine[Any, Any, None]]


class JobReports:
    """Sends the updates of one endpoint's jobs."""

    cancellation_of: Callable[[Envelope], Cancellation | None] | None = None
    """Function that returns the cancellation of a job. None if no job can be cancelled."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._runtime = runtime
        self._pending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop retrying results."""
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)

    def progress_reporter(self, job: Envelope) -> ProgressReporter | None:
        """Return a function that sends progress. Return None if no submitter waits for the job."""
        reply_to = job.reply_to
        if job.role != "job" or reply_to is None:
            return None
        runtime, loop = self._runtime, asyncio.get_running_loop()

        async def report(progress: Progress) -> None:
            if asyncio.get_running_loop() is not loop:
                raise error_in_other_loop(f"the context of {job.type}")
            try:
                update = progress_update(job, progress, source=runtime.service)
                await runtime.transport.send(
                    self._protected(update, job),
                    update_address(reply_to, mandatory=False),
                    timeout=PROGRESS_TIMEOUT_SECONDS,
                )
            except Exception as error:  # noqa: BLE001 - progress never fails the job
                reason = safe_reason(error)
                facts = message_facts(job, why=reason)
                log.debug("progress of %s dropped: %s", message_label(job), reason, extra=facts)

        return report

    async def report_retry(
        self, job: Envelope, error: BaseException, policy: RetryPolicy, delay: float
    ) -> None:
        """Notify the submitter that an attempt failed.

        The update contains the seconds until the next attempt.
        """
        report = self.progress_reporter(job)
        if report is None:
            return
        try:
            seconds = RETRY_DELAYS[retry_delay_for(delay)]
            await report(note_of_retry(job, error, policy, seconds))
        except Exception as unexpected:  # noqa: BLE001 - the retry copy exists already
            log_unsent_update(job, unexpected)

    async def report_result(self, job: Envelope, update: Envelope, *, retry: bool = True) -> bool:
        """Send a result or failure. Return False if the broker cannot be reached.

        If the submitter is not connected, return True. With `retry`, a background task sends the
        result to this submitter again for `RESULT_RETRY_SECONDS`. Pass `retry=False` for a rejected
        job, because any client can submit such a job.
        """
        if job.reply_to is None:
            return True
        try:
            accepted = await self._send(job, update)
        except PermissionDenied as error:
            # Do not retry, because each refused publish closes a channel that other publishes use.
            _log_forbidden(job, update, error)
            return True
        except Exception as error:  # noqa: BLE001 - the job is done, and must not be settled again
            if _may_pass(error):
                return False
            return await self._report_unsendable(job, error, retry=retry)
        if retry and not accepted:
            self.retry_result(job, update)
        return True

    async def _report_unsendable(self, job: Envelope, error: Exception, *, retry: bool) -> bool:
        """Notify the submitter that the result or failure cannot be sent.

        If this notice cannot be sent either, drop it, because the job is done.
        """
        log_unsent_update(job, error)
        fault = unsendable_reply(job, error, source=self._runtime.service)
        try:
            accepted = await self._send(job, fault)
        except Exception as last:  # noqa: BLE001 - as in `report_result`
            log_unsent_update(job, last)
            return not _may_pass(last)
        if retry and not accepted:
            self.retry_result(job, fault)
        return True

    def retry_result(self, job: Envelope, update: Envelope) -> None:
        """Send a result again in the background if fewer than `MAX_PENDING_RESULTS` are pending."""
        if len(self._pending) < MAX_PENDING_RESULTS:
            task = asyncio.get_running_loop().create_task(
                self._retry(job, update), name=f"{RESULT_TASK}{job.id}"
            )
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _retry(self, job: Envelope, update: Envelope) -> None:
        loop = asyncio.get_running_loop()
        ends, attempt = loop.time() + RESULT_RETRY_SECONDS, 0
        while loop.time() < ends:
            attempt += 1
            await asyncio.sleep(backoff(attempt))
            try:
                if await self._send(job, update):
                    return
            except PermissionDenied as error:
                _log_forbidden(job, update, error)
                return
            except BusError as error:
                facts = message_facts(job, job=job.id, why=str(error))
                log.debug(
                    "the result of %s could not be sent: %s", message_label(job), error, extra=facts
                )
            except Exception as error:  # noqa: BLE001 - the exception would only end this task
                log_unsent_update(job, error)
                return
        log.info(
            "the result of %s was dropped, because the submitter %s did not reconnect",
            message_label(job),
            one_line(job.source),
            extra=message_facts(job, type=update.type, job=job.id, submitter=job.source),
        )

    async def _send(self, job: Envelope, update: Envelope) -> bool:
        address = update_address(job.reply_to or "", mandatory=True)
        protected = self._protected(update, job)
        outcome = await self._runtime.transport.send(
            protected, address, timeout=SEND_TIMEOUT_SECONDS
        )
        return isinstance(outcome, Accepted)

    def _protected(self, update: Envelope, job: Envelope) -> Envelope:
        stamped = update.replace(timestamp=int(self._runtime.clock()))
        return self._runtime.security.protect_update(stamped, job)


def note_of_retry(
    job: Envelope, error: BaseException, policy: RetryPolicy, seconds: float
) -> Progress:
    """Return the update that an attempt failed, and that the next one starts in `seconds`."""
    note = (
        f"attempt {job.attempt} of {policy.attempts} failed, the next is in "
        f"{format_seconds(seconds)}: {safe_reason(error)}"
    )
    return Progress(progress=0, note=note, error=code_of(error))


def note_of_wait(dependency: str, error: BaseException) -> Progress:
    """Return the update that a job waits for a dependency."""
    note = f"waits until {dependency} is available: {safe_reason(error)}"
    return Progress(progress=0, note=note, error=code_of(error))


def unsendable_reply(request: Envelope, error: BaseException, *, source: str) -> Envelope:
    """Return the error reply that replaces a reply that is too large or cannot be sent."""
    why = str(error) if isinstance(error, InvalidArgument) else safe_reason(error)
    fault = FailedPrecondition(f"the reply could not be sent: {why}", maybe_executed=True)
    return error_reply(request, fault, source=source)


def log_unsent_update(job: Envelope, error: BaseException) -> None:
    """Log the exception because of which an update of a job was not sent."""
    log_failure(log, job, error, "an update of the job could not be sent")


def _may_pass(error: Exception) -> bool:
    """Return True if the same update may be sent later, for example after a reconnect."""
    return isinstance(error, Unauthenticated) or (isinstance(error, BusError) and error.retryable)


def _log_forbidden(job: Envelope, update: Envelope, error: PermissionDenied) -> None:
    facts = message_facts(job, type=update.type, job=job.id, why=str(error))
    log.error(
        "the broker denied permission to send the result of %s (%s). "
        "Update this service's broker user",
        message_label(job),
        error,
        extra=facts,
    )
