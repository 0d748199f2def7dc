"""The row of a claimed job, for a handler with its own transaction."""

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import Attempt
from bus.messaging.ports.store import Transaction
from bus.runtime.jobs.cancel_sequence import error_of_request
from bus.runtime.jobs.durable_reports import DurableReports
from bus.runtime.jobs.held_job import HeldJob

__all__ = ["ClaimedJobRow"]


class ClaimedJobRow:
    """The row of a job, which a transaction of the handler can end."""

    def __init__(self, held: HeldJob, reports: DurableReports) -> None:
        self._held, self._reports = held, reports

    @property
    def attempt(self) -> Attempt:
        """The attempt of this process, with its current token."""
        return self._held.attempt

    @property
    def cancel_error(self) -> BusError | None:
        """The error of a job whose task this process cancels by request. Otherwise None."""
        held = self._held
        if not held.is_cancelling or held.cancel is None:
            return None
        return error_of_request(held.cancel)

    async def commit(self, transaction: Transaction, reply: Envelope | None) -> bool:
        """Commit a transaction together with the success of the job.

        Args:
            transaction: The transaction of the handler.
            reply: The result of the handler.

        Returns:
            False if the token is stale. Nothing was written then.

        Raises:
            Exception: As `Transaction.commit`. The attempt has not ended.
        """
        stored = None if reply is None else self._reports.stored(reply)
        return await self._held.commit(transaction, stored)
