"""The row of a durable job, as the stages of a transactional handler use it."""

from typing import Protocol

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import Attempt
from bus.messaging.ports.store import Transaction
from bus.runtime.inbound_message import InboundMessage

__all__ = ["ClaimedRow", "row_of"]


class ClaimedRow(Protocol):
    """The row of a job that this process has claimed. Its deliveries have it as `row`."""

    @property
    def attempt(self) -> Attempt:
        """The attempt of this process, with its current token."""
        ...

    @property
    def cancel_error(self) -> BusError | None:
        """The error of a job whose task this process cancels by request. Otherwise None."""
        ...

    async def commit(self, transaction: Transaction, reply: Envelope | None) -> bool:
        """Commit a transaction together with the success of the job.

        Args:
            transaction: The transaction of the handler.
            reply: The result of the handler.

        Returns:
            False if the token is stale. Nothing was written then.

        Raises:
            Exception: As `Transaction.commit`. Nothing was written.
        """
        ...


def row_of(message: InboundMessage) -> ClaimedRow | None:
    """Return the row of a durable job. None for a message from a queue of the broker."""
    row: ClaimedRow | None = getattr(message.deliveries[0], "row", None)
    return row
