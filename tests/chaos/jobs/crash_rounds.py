"""Rounds of one crash point: worker processes are killed there, and a last one ends their jobs."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus import Bus, JobHandle, Settings, Unavailable
from bus.messaging.store_address import StoreAddress
from bus.storage.sqlalchemy.database import Database
from tests.chaos.jobs.crash_points import CRASH_AT
from tests.chaos.jobs.errand import CONCURRENCY, Errand, Made
from tests.chaos.jobs.mortal_workers import MortalWorker, MortalWorkers
from tests.databases import connected

__all__ = ["KEPT", "LEASE", "CrashFigures", "CrashRounds"]

LEASE: Final = 1.0
"""Seconds of a lease, the minimum of the setting."""
AGAIN: Final = 3.0
"""Seconds after which more jobs are submitted, if a process has not reached the point."""
PATIENCE: Final = 90.0
"""Maximum seconds until all processes of a round are killed, or all jobs have ended.

On an idle machine, the jobs end within the lease and the interval of polling.
"""
KEPT: Final = ("incorrect", "lost", "stuck", "leaked")
"""Figures that are 0 if all promises are kept."""
ROWS: Final = """
SELECT count(*), coalesce(sum(losses), 0),
       coalesce(sum(CASE WHEN state = 'succeeded' THEN 1 ELSE 0 END), 0)
FROM bus_jobs
"""
PARTS: Final = "SELECT id, count(*) FROM effects GROUP BY id"


@dataclass(kw_only=True)
class CrashFigures:
    """The figures of one point and one kind of store."""

    runs: int = 0
    """Number of processes that were killed at the point."""
    jobs: int = 0
    """Number of jobs that were accepted, without those that only count the slots."""
    effects: int = 0
    """Number of jobs with an effect."""
    incorrect: int = 0
    """Number of jobs with an effect that is not whole, or exists twice."""
    lost: int = 0
    """Number of accepted jobs without an effect or without a success that the submitter sees."""
    losses: int = 0
    """Number of attempts that the store counts as lost with their process."""
    stuck: int = 0
    """Number of rows that did not end."""
    leaked: int = 0
    """Number of slots that the last process could not use."""
    seconds: float = 0.0
    """Longest time from the start of the last process of a round to the end of all rows."""

    @property
    def broken(self) -> str:
        """The broken promises; empty if all were kept."""
        return ", ".join(f"{value} {name}" for name in KEPT if (value := getattr(self, name)))


class CrashRounds:
    """The rounds of one point with a virtual host and a database of their own."""

    def __init__(
        self, point: str, *, url: str, address: StoreAddress, store: str, workers: MortalWorkers
    ) -> None:
        """Prepare the rounds.

        Args:
            point: Name of the point.
            url: URL of an empty virtual host.
            address: Database with the tables of the store and the table of the handler.
            store: The same database as a value of `BUS_STORE`.
            workers: Processes of this test.
        """
        self.figures = CrashFigures()
        self._point, self._url, self._address, self._workers = point, url, address, workers
        self._environment = {
            "BUS_URL": url,
            "BUS_STORE": store,
            "BUS_AUTH": "off",
            "BUS_LOG_LEVEL": "error",
            "BUS_CONNECT_TIMEOUT": "60",
            "BUS_JOB_LEASE": f"{LEASE:g}",
            # Each process of a round may lose the same job.
            "BUS_DELIVERY_LIMIT": "50",
        }
        self._numbers = count()
        self._handles: list[JobHandle[Made]] = []
        self._others = 0
        """Number of jobs that only count the slots."""

    async def run(self, rounds: int, processes: int) -> CrashFigures:
        """Run the rounds, and return their figures. Each round kills `processes` processes."""
        settings = Settings(url=SecretStr(self._url), auth="off", connect_timeout=60)
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(connected(self._address))
            client = await stack.enter_async_context(Bus("dispatcher", settings=settings))
            for _ in range(rounds):
                await self._kill(client, processes)
                await self._recover(client, database)
        return self.figures

    async def _kill(self, client: Bus, processes: int) -> None:
        """Start the processes of a round, and submit jobs until each was killed at the point."""
        environment = {**self._environment, CRASH_AT: self._point}
        # One after the other, so that the processes do not compete for the file of SQLite.
        workers = [await self._workers.start(environment) for _ in range(processes)]
        async with asyncio.timeout(PATIENCE):
            while left := [worker for worker in workers if not worker.ended.done()]:
                for _ in range(CONCURRENCY * len(left)):
                    job = Errand(number=next(self._numbers))
                    self._handles.append(await client.submit(job))
                await asyncio.wait([worker.ended for worker in left], timeout=AGAIN)
        ends = [worker.ended.result() for worker in workers]
        assert ends == [-signal.SIGKILL] * processes, f"{self._point}: exit codes {ends}"
        self.figures.runs += processes

    async def _recover(self, client: Bus, database: Database) -> None:
        """Let a last process end all jobs, and use all its slots at the same time."""
        worker = await self._workers.start(self._environment)
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not await self._have_all_succeeded(database):
                    await asyncio.sleep(0.05)
        self.figures.seconds = max(self.figures.seconds, round(time.monotonic() - began, 2))
        await self._judge(database)
        await self._fill_slots(client, worker)
        await self._stop(worker)

    async def _fill_slots(self, client: Bus, worker: MortalWorker) -> None:
        """Submit jobs that end only if all of them run at the same time."""
        handles = [
            await client.submit(Errand(number=number, meets=True)) for number in range(CONCURRENCY)
        ]
        self._others += CONCURRENCY
        ended = await asyncio.gather(
            *(handle.result(timeout=PATIENCE) for handle in handles), return_exceptions=True
        )
        if any(isinstance(each, BaseException) for each in ended):
            self.figures.leaked += 1
        assert not worker.ended.done(), f"{self._point}: the last process has ended"

    async def _stop(self, worker: MortalWorker) -> None:
        code = await self._workers.stop(worker)
        assert code == 0, f"{self._point}: the last process has ended with {code}"

    @property
    def _accepted(self) -> int:
        return len(self._handles) + self._others

    async def _judge(self, database: Database) -> None:
        """Compare the rows, the effects and the submitter's view with the accepted jobs."""
        found, losses, succeeded = await self._read_rows(database)
        parts = await self._read_parts(database)
        recent = self._handles[self.figures.jobs :]
        # A lost job is not found, which is an error.
        states = await asyncio.gather(
            *(handle.status() for handle in recent), return_exceptions=True
        )
        figures = self.figures
        ids = {handle.id for handle in self._handles}
        figures.jobs, figures.losses = len(self._handles), losses
        figures.stuck = found - succeeded
        figures.effects = len(parts.keys() & ids)
        figures.incorrect = sum(id_ not in ids or number != 2 for id_, number in parts.items())
        figures.lost = max(
            len(ids - parts.keys()),
            self._accepted - found,
            sum(isinstance(each, BaseException) or each.state != "succeeded" for each in states),
        )

    async def _have_all_succeeded(self, database: Database) -> bool:
        try:
            return (await self._read_rows(database))[2] >= self._accepted
        except Unavailable:  # a database of a busy machine can answer late
            return False

    async def _read_rows(self, database: Database) -> tuple[int, int, int]:
        """Return the number of rows, of losses and of rows that have succeeded."""

        async def work(connection: AsyncConnection) -> tuple[int, int, int]:
            rows, losses, succeeded = (await connection.execute(text(ROWS))).one()
            return int(rows), int(losses), int(succeeded)

        return await database.read(work)

    async def _read_parts(self, database: Database) -> dict[str, int]:
        """Return the number of written rows for each job that has an effect."""

        async def work(connection: AsyncConnection) -> dict[str, int]:
            rows = await connection.execute(text(PARTS))
            return {str(id_): int(number) for id_, number in rows}

        return await database.read(work)
