"""The handle with which a submitter reads the progress and the result of a job."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, cast

from bus.contracts.contract import Contract
from bus.contracts.limits import check_seconds
from bus.errors import BusError, ConnectionLost, ContractViolation, DeadlineExceeded
from bus.messaging.envelope import PROGRESS_SUFFIX, Envelope, Progress, is_final
from bus.messaging.labels import message_facts, message_label
from bus.messaging.progress_bounds import decode_progress
from bus.messaging.timers import format_seconds
from bus.runtime.error_subject import add_subject, name_message, subject_of
from bus.runtime.life_cycle import error_in_other_loop, running_loop
from bus.runtime.pending_request import PendingRequest, R, decode_reply

__all__ = ["PendingJob", "log_unknown_type"]

log = logging.getLogger("bus.client")

MAX_UPDATES = 1000
"""The maximum number of progress updates that a handle keeps for slow readers.

If there are more, the handle drops the oldest updates.
"""


class PendingJob(Generic[R]):
    """The handle of a submitted job. It receives updates until the submitter's bus is closed."""

    def __init__(self, job_id: str, contract: Contract, *, timeout: float) -> None:
        """Create the handle of a job before it is sent.

        Args:
            job_id: The id of the job.
            contract: The contract of the job.
            timeout: Seconds that `result` waits by default, and that `updates` waits for each
                update. The client passes the setting `message_ttl`, after which a job expires.
        """
        self.id = job_id
        self.type = contract.type
        self.request = PendingRequest(contract.type, is_job=True)
        self._contract = contract
        self._timeout = timeout
        self._updates: deque[Progress] = deque(maxlen=MAX_UPDATES)
        self._count = 0
        self._changed = asyncio.Event()
        self._result: Envelope | None = None
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
        and dropped, because a later version of the bus may send other updates.
        """
        if self._result is not None:
            return
        if envelope.type == f"{self._contract.type}{PROGRESS_SUFFIX}":
            self.request.rejection = None
            self._add_progress(envelope)
        elif is_final(envelope.type):
            self._result = envelope
        else:
            log_unknown_type(envelope)
            return
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _add_progress(self, envelope: Envelope) -> None:
        try:
            self._updates.append(decode_progress(envelope.body))
        except ContractViolation as error:
            self.request.rejection = str(error)
            return  # an error here would end the consumer of the reply queue
        self._count += 1

    async def updates(self) -> AsyncIterator[Progress]:
        """Yield the progress updates of the job, beginning with the first, until the job ends.

        The `progress` of an update is from 0 to 1: another number becomes the nearest of these.
        Its texts are cut after 1024 characters. An update without a finite number is dropped.

        Each iterator yields all updates. If an iterator is more than 1000 updates behind, it skips
        the oldest updates.

        Raises:
            ConnectionLost: The bus was closed before the job ended. The job continues.
            DeadlineExceeded: No valid update arrived within `message_ttl` seconds. If an update was
                rejected, the text has the reason.
            FailedPrecondition: The job was submitted in another event loop, and has not ended.
        """
        seen = 0
        while True:
            while seen < self._count:
                seen = max(seen, self._count - len(self._updates))
                yield self._updates[seen - self._count]
                seen += 1
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
                result selects the subclass.
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

    async def _wait_result(self, seconds: float) -> Envelope:
        self._check_open()
        try:
            async with asyncio.timeout(seconds):
                while self._result is None:
                    self._check_open()
                    await self._changed.wait()
        except TimeoutError:
            raise self._deadline_exceeded(
                f"no result within {format_seconds(seconds)}",
                "The job continues. Call `result` again to wait longer.",
            ) from None
        return self._result

    def _check_open(self) -> None:
        """Check that an update can still arrive in this event loop."""
        if self._loop is not running_loop():
            raise error_in_other_loop(f"{self.type} (job {self.id})")
        if self._closed:
            problem = "the bus was closed before the result arrived. The job continues."
            raise add_subject(ConnectionLost(problem, maybe_executed=True), self.type, self.id)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            raise self._deadline_exceeded(
                f"no update for {format_seconds(seconds)}",
                "The job continues. Iterate over its updates again to wait longer.",
            ) from None

    def _deadline_exceeded(self, problem: str, advice: str) -> DeadlineExceeded:
        """Return the error of a reader. If an update was rejected, its text has the reason."""
        rejection = self.request.rejection
        if rejection is not None:
            # The rejected update can have been the result, so the job does not surely continue.
            advice = f"The job may have ended. An update of the job was rejected: {rejection}"
        return add_subject(DeadlineExceeded(f"{problem}. {advice}"), self.type, self.id)


def log_unknown_type(answer: Envelope) -> None:
    """Log a reply or update that is ignored, because this version does not know its type."""
    log.debug(
        "%s ignored: this version of the bus does not know its type",
        message_label(answer),
        extra=message_facts(answer, app_id=answer.source),
    )
