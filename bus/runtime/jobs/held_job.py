"""A durable job that this process has claimed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict, Unpack

from bus.messaging.cancellation import Cancellation
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import (
    Attempt,
    AttemptEnd,
    CancelRequest,
    ClaimedJob,
    JobFailure,
)
from bus.messaging.jobs.states import JobState
from bus.messaging.ports.store import Transaction
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.jobs.job_measures import JobMeasures
from bus.runtime.jobs.job_progress import StoredProgress

__all__ = ["AttemptControl", "AttemptWriter", "EndValues", "HeldJob"]


class EndValues(TypedDict, total=False):
    """The optional values of an `AttemptEnd`."""

    run_at: float | None
    result: Envelope | None
    failure: JobFailure | None
    headers: dict[str, str | int] | None


class AttemptWriter(Protocol):
    """Interface of the object that holds the jobs of this process, and writes their ends."""

    async def write_end(self, end: AttemptEnd) -> JobState | None:
        """Write the end of an attempt. Return None if its token is stale."""
        ...

    def release(self, held: "HeldJob") -> None:
        """Stop renewing the lease of a job."""
        ...

    def note_stale_write(self, held: "HeldJob") -> None:
        """Count and log a write that the store has refused."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptControl:
    """The functions by which an attempt controls its task."""

    deliver: Callable[[ClaimedJob], object]
    """Function that starts a new attempt of the same job in this process."""
    cancel_handling: Callable[[], None]
    """Function that cancels the task."""
    begin_cancellation: Callable[[], None]
    """Function that begins the cancellation of the job."""


class HeldJob:
    """The attempt of a job in this process, from its claim to the end that the store accepted.

    If the lease has expired while the store was away, this process can claim the job a second time
    while its handler still runs. The running attempt then continues with the new token.
    """

    def __init__(
        self,
        claimed: ClaimedJob,
        writer: AttemptWriter,
        progress: StoredProgress,
        measures: JobMeasures,
        control: AttemptControl,
    ) -> None:
        """Create the object of a claimed job.

        Args:
            claimed: The claim.
            writer: Object that writes the end.
            progress: Progress of the attempt.
            measures: Measurements of the type of the job.
            control: Functions that control its task.
        """
        self.claimed = claimed
        """The last claim of the job by this process."""
        self.progress, self.measures = progress, measures
        self.cancel: CancelRequest | None = None
        """Request to cancel the job, as soon as this process knows it."""
        self.cancellation = Cancellation()
        """The cancellation, as the handler sees it."""
        self.has_begun = False
        """True if the handler has begun."""
        self.is_cancelling = False
        """True if the task is cancelled by request."""
        self.is_given_up = False
        """True if the job ended without its handler, which did not end."""
        self.is_lost = False
        """True if another process may have the job. Nothing more is written."""
        self.is_ending = False
        """True if the end is being written, or has been written."""
        self._writer = writer
        self._control = control

    @property
    def attempt(self) -> Attempt:
        """The attempt, with the token of the last claim."""
        return self.claimed.attempt_of

    async def end(self, state: JobState, **values: Unpack[EndValues]) -> JobState | None:
        """Write the end of the attempt. While the store is away, repeat the write.

        Returns:
            The state that was written. None if the token is stale, so nothing was written.
        """
        if self.is_given_up:
            self._writer.note_stale_write(self)
        if self.is_lost or self.is_ending:
            return None
        self.is_ending = True
        try:
            claimed, written = await self._write(state, values)
        except UNEXPECTED:  # the caller tries another end
            self.is_ending = False
            raise
        self._close(claimed, is_stale=written is None)
        return written

    async def commit(self, transaction: Transaction, result: Envelope | None) -> bool:
        """Commit a handler's transaction together with the success of the job.

        Returns:
            False if the token is stale. Nothing was written then.

        Raises:
            Exception: As `Transaction.commit`. The attempt has not ended.
        """
        if self.is_lost or self.is_ending:
            return False
        self.is_ending, claimed = True, self.claimed
        end = AttemptEnd(attempt=claimed.attempt_of, state="succeeded", result=result)
        try:
            is_written = await transaction.commit(end, progress=self.progress.take())
        except UNEXPECTED:
            self.is_ending = False
            raise
        self._close(claimed, is_stale=not is_written)
        return is_written

    def _close(self, claimed: ClaimedJob, *, is_stale: bool) -> None:
        """Stop renewing the lease, after the answer to an end with the token of `claimed`."""
        self._writer.release(self)
        if is_stale:
            self.is_lost = True
            self._writer.note_stale_write(self)
        if self.claimed is not claimed:
            self._control.deliver(self.claimed)  # this process has claimed the job again

    async def _write(
        self, state: JobState, values: EndValues
    ) -> tuple[ClaimedJob, JobState | None]:
        """Write an end with the token of the last claim. Return this claim, and the new state."""
        while True:
            claimed = self.claimed
            end = AttemptEnd(attempt=claimed.attempt_of, state=state, **values)
            written = await self._writer.write_end(end)
            if written is not None or self.claimed is claimed:
                return claimed, written

    def request_cancel(self, request: CancelRequest) -> None:
        """Begin the cancellation of the job. A second call has no effect."""
        if self.cancel is None:
            self.cancel = request
            self.cancellation.request()
            self._control.begin_cancellation()

    async def end_without_handler(self) -> None:
        """End the job as cancelled. A later write of its handler is refused."""
        await self.end("cancelled")
        self.is_given_up = True

    def lose(self) -> None:
        """Cancel the handler, because the token is stale."""
        self.is_lost = True
        self._writer.release(self)
        self._control.cancel_handling()

    def abandon(self) -> None:
        """Let the lease expire, which counts as a loss."""
        self.is_lost = True
        self._writer.release(self)
