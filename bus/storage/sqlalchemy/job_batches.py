"""The statements that change many jobs, which each database has in its own form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.messaging.jobs.records import Attempt, AttemptEnd, NewJob, OtherJob
from bus.messaging.jobs.states import JobState

__all__ = ["JobBatches", "OrderedClaim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedClaim:
    """The arguments of a claim."""

    queue: str
    worker: str
    limit: int
    lease: float
    most_losses: int


class JobBatches(Protocol):
    """Statements for many jobs. `now` is the present time, or None for the database's clock."""

    async def record(
        self, connection: AsyncConnection, jobs: Sequence[NewJob], now: float | None
    ) -> dict[tuple[str, str], OtherJob]:
        """Insert jobs, and return the stored (id, submitter), type and queue of the new ones."""
        ...

    async def claim(
        self, connection: AsyncConnection, order: OrderedClaim, now: float | None
    ) -> Sequence[Row[Any]]:
        """Return the jobs of lost workers to the queue, claim jobs, and return their rows."""
        ...

    async def renew(
        self,
        connection: AsyncConnection,
        attempts: Sequence[Attempt],
        lease: float,
        now: float | None,
    ) -> dict[int, Row[Any]]:
        """Renew leases, and return the rows of the attempts that run, by their index."""
        ...

    async def end(
        self, connection: AsyncConnection, ends: Sequence[AttemptEnd], now: float | None
    ) -> Sequence[JobState | None]:
        """End attempts, and return the state of each, or None for a stale token."""
        ...
