"""The handle with which a submitter reads the progress and the result of a job."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, cast

from bus.contracts.contract import Contract
from bus.contracts.limits import check_seconds
from bus.errors import (
    BusError,
    ConnectionLost,
    ContractViolation,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Undecodable,
)
from bus.messaging.envelope import PROGRESS_SUFFIX, Envelope, Progress, is_final
from bus.messaging.jobs.status import JobStatus
from bus.messaging.labels import message_facts, message_label
from bus.messaging.timers import format_seconds
from bus.runtime.error_subject import add_subject, name_message, subject_of
from bus.runtime.job_arguments import check_after, check_reason
from bus.runtime.jobs.job_asker import JobAsker, has_no_owner
from bus.runtime.jobs.job_polls import AFTER_PUSHES, JobPolls, PollSchedule
from bus.runtime.life_cycle import error_in_other_loop, running_loop
from bus.runtime.pending_request import PendingRequest, R, decode_reply
from bus.runtime.received_updates import ReceivedUpdates

__all__ = ["PendingJob", "log_unknown_type"]

log = logging.getLogger("bus.client")

REFUSALS = frozenset(
    each.code for each in (Unauthenticated, PermissionDenied, InvalidArgument, Undecodable)
)
"""Codes of the errors with which a service refuses a message before it records the job.

A sender without a key can copy a job and its proof, and change the copy. The service refuses the
copy, and cannot tell whether the submitter has sent it.
"""


class PendingJob(Generic[R]):
    """The handle of a job. It receives updates, and asks for them, until its bus is closed."""

    def __init__(
        self,
        job_id: str,
        contract: Contract,
        *,
        timeout: float,
        asker: JobAsker | None = None,
        schedule: PollSchedule = AFTER_PUSHES,
    ) -> None:
        """Create the handle of a job, before it is sent, or of one that any process has sent.

        Args:
            job_id: The id of the job.
            contract: The contract of the job.
            timeout: Seconds that `result` waits by default, and that `updates` waits for each
                update. The client passes the setting `message_ttl`, after which a job expires.
            asker: Object that asks the service of the job. None: the handle only receives updates.
            schedule: Times at which the handle asks while a reader waits.
        """
        self.id = job_id
        self.type = contract.type
        self.request = PendingRequest(contract.type, is_job=True)
        self._contract = contract
        self._timeout = timeout
        self._asker = asker
        self._polls = None if asker is None else JobPolls(self._look, schedule)
        self._updates = ReceivedUpdates()
        self._changed = asyncio.Event()
        self._result: Envelope | None = None
        self._refusal: Envelope | None = None
        """Pushed refusal, until the service reports whether it has the job."""
        self._closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def has_ended(self) -> bool:
        """True if the result, or the error of the job, has arrived."""
        return self._result is not None

    def close(self) -> None:
        """Raise `ConnectionLost` in all waiting readers, because no further update can arrive."""
        self._closed = True
        self._notify()

    def on_update(self, envelope: Envelope) -> None:
        """Store a progress update, or the result, and wake the waiting readers.

        An update that arrives after the result is dropped. An update of an unknown type is logged
        and dropped, because a later version of the bus may send other updates. A refusal ends the
        job only if the service does not have the job in its store.
        """
        if self._polls is not None:
            self._polls.on_push()
            if self._result is None and envelope.error in REFUSALS:
                self._refusal = envelope
                self._polls.ask_soon()
                self._notify()
                return
        self._add_update(envelope)

    def on_connection_lost(self) -> None:
        """Ask again after a reconnect, because updates may have been lost."""
        if self._polls is not None and self._result is None:
            self._polls.on_connection_lost()
            self._notify()

    async def _look(self) -> None:
        """Ask for the state of the job, and store its new updates."""
        if self._asker is None:
            return
        refusal = self._refusal
        try:
            look = await self._asker.look(after=self._updates.number)
        except BusError as error:
            if refusal is None or not _confirms_refusal(error):
                raise
            self._add_update(refusal)
            return
        if self._refusal is refusal:  # the row proves that the refused message was another one
            self._refusal = None
        if look.progress is not None and self._result is None:
            with self._recording_rejection():
                self._updates.add_asked(look.progress, look.status.progress_number)
            self._notify()
        if look.result is not None:
            self._add_update(look.result)

    def _add_update(self, envelope: Envelope) -> None:
        if self._result is not None:
            return
        if envelope.type == f"{self._contract.type}{PROGRESS_SUFFIX}":
            with self._recording_rejection():
                self._updates.add(envelope)
        elif is_final(envelope.type):
            self._result = envelope
        else:
            log_unknown_type(envelope)
            return
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @contextmanager
    def _recording_rejection(self) -> Iterator[None]:
        """Record why an update is not valid. An error would end the consumer of the replies."""
        self.request.rejection = None
        try:
            yield
        except ContractViolation as error:
            self.request.rejection = str(error)

    async def updates(self, *, after: int = 0) -> AsyncIterator[Progress]:
        """Yield the progress updates of the job, beginning with the first, until the job ends.

        The `progress` of an update is from 0 to 1: another number becomes the nearest of these.
        Its texts are cut after 1024 characters. An update without a finite number is dropped.

        Each iterator yields all updates that this handle has received. If an iterator is more than
        1000 updates behind, it skips the oldest updates. A handle of `Bus.job` receives the last
        stored update, and those that are stored later.

        Args:
            after: Number of the last update that the caller knows. Only later ones are yielded.

        Raises:
            ConfigurationError: `after` is not a whole number from 0.
            ConnectionLost: The bus was closed before the job ended. The job continues.
            DeadlineExceeded: No valid update arrived within `message_ttl` seconds. If an update was
                rejected, the text has the reason.
            FailedPrecondition: The job was submitted in another event loop, and has not ended.
            BusError: One of the errors of `status`, if this handle receives no pushed updates.
        """
        known, seen = check_after(after, subject_of(self.type, self.id)), 0
        while True:
            for position, update in self._updates.since(seen):
                seen = position
                if update.number > known:
                    yield update
            if self._result is not None:
                return
            self._check_open()
            await self._wait(self._timeout)

    async def result(self, *, timeout: float | None = None) -> R:
        """Wait for the result of the job.

        Args:
            timeout: Seconds to wait. The default is the setting `message_ttl`.

        Returns:
            The result of the handler.

        Raises:
            BusError: The job failed with this error in its last attempt. The error code in the
                result selects the subclass. Or it is one of the errors of `status`, if this handle
                receives no pushed updates.
            Cancelled: The job was cancelled. The text has the reason.
            ConfigurationError: `timeout` is not a finite number of seconds from 0.
            DeadlineExceeded: No valid result arrived in time. If an update was rejected, the text
                has the reason. Otherwise the job continues.
            ConnectionLost: The bus was closed before the job ended. The job continues.
            FailedPrecondition: The job was submitted in another event loop, and has not ended.
            ContractViolation: The result does not match the contract.
            Unknown: This version of the bus does not have the error code of the result. Or the type
                of the result is not the type in the contract.
        """
        limit = self._timeout
        if timeout is not None:
            limit = check_seconds(timeout, "timeout", subject_of(self.type, self.id), shortest=0)
        envelope = self._result or await self._wait_result(limit)
        try:
            return cast("R", decode_reply(self._contract, envelope, job_id=self.id))
        except BusError as error:
            name_message(error, self.type, self.id)
            raise

    async def status(self) -> JobStatus:
        """Ask the service of the job for its state.

        Raises:
            NotFound: The service has no such job. Or this service has not submitted the job, and
                has no right to read it.
            FailedPrecondition: The job with this id has another type.
            Unavailable: The service does not answer in time, or has no durable store. Or one of its
                instances has not recorded yet what it received, and can hold the job.
            BusError: One of the errors of a request.
        """
        return await self._open_asker().status()

    async def cancel(self, *, reason: str = "") -> JobStatus:
        """Request the cancellation of the job, and return its state after that.

        A job that waits is cancelled at once. A running handler is asked to end, and is cancelled
        after a grace period. A job that has ended does not change. The service stores the request,
        so that it survives a restart.

        Args:
            reason: Text for operators, at most 200 characters. It appears in logs and lists.

        Raises:
            ConfigurationError: The reason is not a text, or is too long.
            BusError: One of the errors of `status`. The right to cancel is a right of its own.
        """
        status = await self._open_asker().cancel(
            check_reason(reason, subject_of(self.type, self.id))
        )
        if self._polls is not None and status.has_ended and self._result is None:
            self._polls.ask_soon()
            self._notify()
        return status

    def _open_asker(self) -> JobAsker:
        self._check_open()
        if self._asker is None:
            problem = "this handle only receives updates. Get one from Bus.submit or Bus.job."
            raise add_subject(FailedPrecondition(problem), self.type, self.id)
        return self._asker

    async def _wait_result(self, seconds: float) -> Envelope:
        self._check_open()
        try:
            async with asyncio.timeout(seconds):
                while self._result is None:
                    self._check_open()
                    await self._wait_change()
        except TimeoutError:
            if self._refusal is not None:  # no answer tells that the job is recorded
                return self._refusal
            raise self._unanswered() or self._deadline_exceeded(
                f"no result within {format_seconds(seconds)}",
                f"{self._whereabouts} Call `result` again to wait longer.",
            ) from None
        return self._result

    def _check_open(self) -> None:
        """Check that an update can still arrive in this event loop."""
        if self._loop is not running_loop():
            raise error_in_other_loop(f"{self.type} (job {self.id})")
        if self._closed:
            problem = f"the bus was closed before the result arrived. {self._whereabouts}"
            raise add_subject(ConnectionLost(problem, maybe_executed=True), self.type, self.id)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wait_change()
        except TimeoutError:
            raise self._unanswered() or self._deadline_exceeded(
                f"no update for {format_seconds(seconds)}",
                f"{self._whereabouts} Iterate over its updates again to wait longer.",
            ) from None

    async def _wait_change(self) -> None:
        """Wait for an update, and ask for it at the times of the schedule."""
        if self._polls is None:
            await self._changed.wait()
        else:
            await self._polls.wait(self._changed)

    def _unanswered(self) -> BusError | None:
        """Return the error of the last question, if only answers can bring updates."""
        polls = self._polls
        return None if polls is None or not polls.needs_answers else polls.failure

    @property
    def _whereabouts(self) -> str:
        """A sentence about the job for a reader that stops to wait."""
        polls = self._polls
        if polls is None or not polls.needs_answers or polls.has_answered:
            return "The job continues."
        return "It is not known yet whether the job exists."

    def _deadline_exceeded(self, problem: str, advice: str) -> DeadlineExceeded:
        """Return the error of a reader. If an update was rejected, its text has the reason."""
        rejection = self.request.rejection
        if rejection is not None:
            # The rejected update can have been the result, so the job does not surely continue.
            advice = f"The job may have ended. An update of the job was rejected: {rejection}"
        return add_subject(DeadlineExceeded(f"{problem}. {advice}"), self.type, self.id)


def _confirms_refusal(error: BusError) -> bool:
    """Return True if a service that refused a job answers this question as if it has no job."""
    return has_no_owner(error) or isinstance(error, NotFound | PermissionDenied | Unauthenticated)


def log_unknown_type(answer: Envelope) -> None:
    """Log a reply or update that is ignored, because this version does not know its type."""
    log.debug(
        "%s ignored: this version of the bus does not know its type",
        message_label(answer),
        extra=message_facts(answer, app_id=answer.source),
    )
