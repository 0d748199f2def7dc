"""Deliveries of claimed jobs, in the form that a transport delivers messages."""

from collections.abc import Callable, Mapping
from typing import Any

from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import JobFailure
from bus.runtime.jobs.claimed_job_row import ClaimedJobRow
from bus.runtime.jobs.held_job import HeldJob

__all__ = ["StoredDelivery"]


class StoredDelivery:
    """A claimed job as a `Delivery`. Losses count as lost deliveries, so ADR 0017 applies."""

    def __init__(
        self, envelope: Envelope, losses: int, on_done: Callable[["StoredDelivery"], None]
    ) -> None:
        """Create the delivery of a job. `on_done` is called once, when the job has ended here."""
        self.envelope = envelope
        """The message of the job. `received` is the time of the claim."""
        self.held: HeldJob
        """The attempt. The feed sets it."""
        self.row: ClaimedJobRow
        """The row, for a handler with its own transaction. The feed sets it."""
        self._losses = losses
        self._on_done = on_done
        self._is_done = False

    @property
    def redelivered(self) -> bool:
        """True if a worker was lost while it had the job."""
        return self._losses > 0

    @property
    def is_open(self) -> bool:
        """True until the job has ended here, or another process has taken it over."""
        return not self._is_done and not self.held.is_lost

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """The number of losses, under the name of the broker's count of lost deliveries."""
        return {"x-delivery-count": self._losses} if self._losses else {}

    async def ack(self) -> bool:
        """Return True. The settler has written the end of the attempt already."""
        self._finish()
        return True

    async def requeue(self, *, counts: bool = False) -> bool:
        """Return the job to its queue, with neither an attempt nor a loss.

        Args:
            counts: True to let the lease expire instead, which counts as a loss.

        Returns:
            False if nothing was written.
        """
        try:
            if counts:
                self.held.abandon()
                return False
            if not (self.held.is_lost or self.held.is_ending):
                await self.held.progress.flush()
            return await self.held.end("queued") is not None
        finally:
            self._finish()

    async def reject(self) -> bool:
        """End the job as failed, because this process cannot read its message."""
        try:
            failure = JobFailure(code="rejected", reason="a worker rejected the message")
            return await self.held.end("failed", failure=failure) is not None
        finally:
            self._finish()

    def leave(self) -> None:
        """Stop counting the job as a job of this process, because its handler does not end."""
        if not self._is_done:
            self._is_done = True
            self._on_done(self)

    def _finish(self) -> None:
        if not self._is_done:
            self._is_done = True
            self.held.abandon()  # without an effect after an end
            self._on_done(self)
