"""The job of the crash tests. Its handler writes two rows in one transaction."""

import asyncio
import os
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from bus import Context, Job, Message, RetryPolicy, Router, Unavailable, contract
from bus.contracts.contract import Catalog
from tests.chaos.jobs.crash_points import CRASH_AT, reach

__all__ = ["CONCURRENCY", "EFFECTS", "SERVICE", "Errand", "Made", "router_of"]

SERVICE: Final = "courier"
CONCURRENCY: Final = 4
EFFECTS: Final = "CREATE TABLE effects (id TEXT NOT NULL, part TEXT NOT NULL)"
"""Statement that creates the table of the handler."""
LONG: Final = 60.0
"""Seconds of a handler whose process is killed while it runs."""
WHILE_IT_RUNS: Final = ("progress-stored", "renewed")
BEFORE_A_RETRY: Final = ("before-retry", "retry-written")

catalog = Catalog()


class Made(Message):
    """Result of a job."""

    number: int


@contract("courier.errand", version=1, catalog=catalog)
class Errand(Job[Made]):
    """One job."""

    number: int
    meets: bool = False
    """True for a job that ends only if as many jobs run as the service has slots."""


def router_of() -> Router:
    """Return the router of one process."""
    router, point = Router(SERVICE), os.environ.get(CRASH_AT)
    meeting = asyncio.Barrier(CONCURRENCY)

    @router.job(
        Errand,
        transactional=True,
        concurrency=CONCURRENCY,
        retry=RetryPolicy(attempts=5, first_delay=0.2, factor=1),
    )
    async def run(job: Errand, context: Context, session: AsyncSession) -> Made:
        if job.meets:
            await meeting.wait()
            return Made(number=job.number)
        await context.progress(0.5)
        if point in WHILE_IT_RUNS:
            await asyncio.sleep(LONG)
        if point in BEFORE_A_RETRY:
            raise Unavailable("the attempt fails before the process is killed")
        for part in ("first", "second"):
            await session.execute(
                text("INSERT INTO effects VALUES (:id, :part)"),
                {"id": context.envelope.id, "part": part},
            )
            reach("in-handler")
        return Made(number=job.number)

    return router
