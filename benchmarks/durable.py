"""Durable jobs: the rate from submit to a stored result, and the time from submit to the start.

One peer at a time runs, with its own database in one PostgreSQL: an idle peer that polls would take
time from the others. Each turn starts a worker and a submitter, warms them up, measures the peak,
and then the latency at a quarter of that peak.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.actor import Actor, RunFailed, descendants
from benchmarks.actors.stage import cpu_clock
from benchmarks.environments import Absent
from benchmarks.machine import busy_cores
from benchmarks.peers import (
    CELERY_STORED,
    DBOS,
    FEW_HANDLERS,
    NO_STORE,
    ON_POSTGRES,
    ON_SQLITE,
    PGQUEUER,
    PROCRASTINATE,
    TASKIQ_STORED,
    Peer,
)
from benchmarks.postgres import private_server
from benchmarks.works import Rounds, Run, Sample
from tests.postgres import PostgresCluster

__all__ = ["DURABLE", "FINISHED", "durable"]

DURABLE = (
    ON_POSTGRES,
    FEW_HANDLERS,
    ON_SQLITE,
    NO_STORE,
    CELERY_STORED,
    TASKIQ_STORED,
    PROCRASTINATE,
    PGQUEUER,
    DBOS,
)
OWN = "SELECT count(*) FROM bus_jobs WHERE state = 'succeeded'"
FINISHED: Mapping[str, str] = {
    ON_POSTGRES: OWN,
    FEW_HANDLERS: OWN,
    ON_SQLITE: OWN,
    CELERY_STORED: "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'",
    TASKIQ_STORED: "SELECT count(*) FROM taskiq_results",
    PROCRASTINATE: "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
    PGQUEUER: "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
    DBOS: "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
}
"""The number of jobs that have ended with a stored result, for each peer with a database."""
SUBMITTING = 50
"""Submissions in flight."""
WARM_UP = 200
"""Jobs before the first measurement of a turn."""
SECONDS = 3.0
"""Duration of a measurement, by the rate of the warm-up."""
SHARE = 0.25
"""The load of the latency, as a part of the peak."""
STALL = 120.0
"""Seconds after which results that are not stored fail the turn."""
LOOK, NEAR = 0.05, 0.005
"""Seconds between two looks at the number of results: far from the end, and near it."""

Count = Callable[[], Awaitable[int]]


@dataclass
class Results:
    """The results of a turn in its database."""

    count: Count
    """A function that returns the number of stored results."""
    expected: int = 0

    async def more(self, number: int) -> float:
        """Wait until `number` further results are stored, and return the time."""
        self.expected += number
        limit = time.monotonic() + STALL
        while True:
            began = time.monotonic()
            missing = self.expected - await self.count()
            now = time.monotonic()
            if missing <= 0:
                return now
            if now > limit:
                raise RunFailed(f"{missing} results are not stored")
            # The count must not take the processor's time from the peer.
            look = NEAR if missing < number / 10 else LOOK
            await asyncio.sleep(max(look, 5 * (now - began)))


@dataclass(kw_only=True)
class Turn:
    """One peer's processes, and the results that they store."""

    run: Run
    peer: Peer
    worker: Actor
    submitter: Actor
    server: int
    """The process id of PostgreSQL."""
    results: Results | None
    """None: nothing is stored, and the submitter receives the results."""

    def clocks(self) -> dict[str, float]:
        """Return the CPU seconds of each side until now."""
        sides = {
            "submitter": self.submitter.pids,
            "worker": self.worker.pids,
            "database": [self.server, *descendants(self.server)],
            "broker": self.run.broker,
        }
        return {side: sum(map(cpu_clock, pids)) for side, pids in sides.items()}

    async def filled(self, count: int) -> Sample:
        """Submit jobs as fast as they are confirmed, and wait until every result is stored."""
        before, busy, began = self.clocks(), busy_cores(), time.monotonic()
        submitting = self.submitter.tell("fill", count=count, in_flight=SUBMITTING)
        if self.results is None:
            sent = await submitting
            await self.submitter.tell("collect", count=count)
            ended = time.monotonic()
        else:
            sent, ended = await asyncio.gather(submitting, self.results.more(count))
        used = {side: clock - before[side] for side, clock in self.clocks().items()}
        others = (busy_cores() - busy - sum(used.values())) / (time.monotonic() - began)
        if self.results is not None:
            await self.submitter.tell("collect", count=count)
        seconds = ended - sent["began"]
        return {
            "count": count,
            "seconds": seconds,
            "rate": count / seconds,
            "cpu": {side: clock / count * 1e6 for side, clock in used.items() if clock > 0},
            "others": others,
        }

    async def paced(self, rate: float, seconds: float) -> Sample:
        """Submit jobs at a rate, and return the latencies from submit to start."""
        sent = await self.submitter.tell("paced", rate=f"{rate:.1f}", seconds=seconds)
        if self.results is not None:
            await self.results.more(sent["count"])
        found = await self.submitter.tell("collect", count=sent["count"])
        return {**found, "rate": rate, "seconds": seconds}


async def durable(run: Run) -> dict[str, Rounds]:
    """Measure `durable` and `durable-start`, with one running peer at a time."""
    peers = run.who(DURABLE)
    found: dict[str, Rounds] = {
        "durable": {peer.key: [] for peer in peers},
        "durable-start": {peer.key: [] for peer in peers},
    }
    try:
        with ExitStack() as stack:
            server = stack.enter_context(private_server())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-sqlite-")))
            version = server.execute("SHOW server_version").split()[0]
            run.notes.append(
                f"Durable jobs: PostgreSQL {version}, `fsync` and `synchronous_commit` on."
            )
            for number in range(run.times(5, 1)):
                for peer in peers:
                    place = Place(server=server, folder=folder, number=number, peer=peer.key)
                    try:
                        peak, start = await turn(run, peer, place)
                    except RunFailed as failed:
                        run.notes.append(f"{peer.title}, durable jobs: {failed}"[:300])
                        run.say(f"bench: durable    {failed}")
                        continue
                    found["durable"][peer.key].append(peak)
                    found["durable-start"][peer.key].append(start)
                    run.say(
                        f"bench: durable    {peer.title}: {peak['rate']:,.0f}/s; at "
                        f"{start['rate']:,.0f}/s start p50 {start['p50']:.1f} ms, "
                        f"p99 {start['p99']:.1f} ms"
                    )
    except Absent as missing:
        run.notes.append(f"Durable jobs were not measured: {missing.why}.")
        return {}
    return found


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of one turn's jobs."""

    server: PostgresCluster
    folder: Path
    number: int
    peer: str

    @property
    def name(self) -> str:
        """The name of the database, which is new in each turn."""
        return f"{self.peer.replace('-', '_')}_{self.number}"

    @property
    def file(self) -> Path:
        """The file of the embedded store."""
        return self.folder / f"{self.name}.db"

    @property
    def url(self) -> str:
        """The URL of the database in PostgreSQL."""
        return self.server.url(self.name)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the turn's processes."""
        file = f"sqlite:///{self.file}"
        stores = {ON_POSTGRES: self.url, FEW_HANDLERS: self.url, ON_SQLITE: file}
        store = stores.get(self.peer)
        return {"BENCH_POSTGRES": self.url} | ({"BUS_STORE": store} if store else {})


async def turn(run: Run, peer: Peer, place: Place) -> tuple[Sample, Sample]:
    """Measure one peer: the peak, and the latencies below it."""
    await create(place)
    async with AsyncExitStack() as stack:
        more = place.environment()
        worker = await stack.enter_async_context(run.actor(peer, "work", more=more))
        more.pop("BUS_STORE", None)  # a store belongs to one service
        role = "hold" if peer.key == NO_STORE else "submit"
        submitter = await stack.enter_async_context(run.actor(peer, role, more=more))
        count = await stack.enter_async_context(counter(place))
        now = Turn(
            run=run,
            peer=peer,
            worker=worker,
            submitter=submitter,
            server=place.server.pid,
            results=count and Results(count),
        )
        warm = await now.filled(WARM_UP)
        warm = await now.filled(max(WARM_UP, int(warm["rate"])))
        peak = await now.filled(max(WARM_UP, int(warm["rate"] * run.long(SECONDS))))
        start = await now.paced(peak["rate"] * SHARE, run.long(SECONDS))
        return peak, start


async def create(place: Place) -> None:
    """Create the turn's database, and the tables of the bus."""
    place.server.execute(f'CREATE DATABASE "{place.name}"')
    if store := place.environment().get("BUS_STORE"):
        await upgraded(store)


async def upgraded(store: str) -> None:
    """Create the tables of the bus in a store."""
    # Only this workload needs SQLAlchemy, which is in the extra `store`.
    from benchmarks.stores import opened, upgrade  # noqa: PLC0415

    async with opened(store) as database:
        await upgrade(database)


async def connected(url: str) -> Any:
    """Return a connection to PostgreSQL; raise `Absent` without the driver."""
    try:
        # Only this workload needs the driver, which is in the extra `postgres`.
        import asyncpg  # noqa: PLC0415
    except ImportError:
        raise Absent("asyncpg is not installed (extra `postgres`)") from None
    return await asyncpg.connect(url)


@asynccontextmanager
async def counter(place: Place) -> AsyncIterator[Count | None]:
    """Yield a function that returns the number of stored results, or None without a store."""
    query = FINISHED.get(place.peer)
    if query is None:
        yield None
    elif place.peer == ON_SQLITE:
        with closing(sqlite3.connect(f"file:{place.file}?mode=ro", uri=True, timeout=10)) as file:

            async def embedded() -> int:
                return int(file.execute(query).fetchone()[0])

            yield embedded
    else:
        connection = await connected(place.url)

        async def in_postgres() -> int:
            # A peer may create its table with the first result.
            there = await connection.fetchval("SELECT to_regclass($1)", query.split()[3])
            return int(await connection.fetchval(query)) if there else 0

        try:
            yield in_postgres
        finally:
            await connection.close()
