"""Statements of the durable store among a million jobs: claims, lists and counts.

usage: python -m benchmarks.store_rows [--rows 1000000] [--claims 3000] [--lists 60] [--explain]

The store is a private PostgreSQL with durable defaults. Its jobs are in all states. Four workers
claim jobs and end them while the claims are measured; lists and counts are measured while they go
on. `--explain` prints the plan of each list that is slower than the target.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from benchmarks.actors.stage import percentile
from benchmarks.pairs import load
from benchmarks.postgres import private_server
from benchmarks.stores import opened, upgrade
from bus.messaging.envelope import Envelope, to_stored_bytes
from bus.messaging.jobs.records import AttemptEnd, JobFilter
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.job_selection import COUNT, list_jobs
from bus.storage.sqlalchemy.job_store import SqlJobStore

__all__ = ["main"]

TARGET = 50.0
"""Milliseconds at p99 of claims, lists and questions about one job.

Counts read an entry of an index for each job. They serve only gauges, at most every 10 s.
"""
COUNTS = "counts"
WORKERS = 4
PAUSE = 0.01
"""Seconds between two claims of a worker: the workers must not take all of the processor."""
BATCH = 10
"""Jobs that a worker claims at a time."""
QUEUES, TYPES, SUBMITTERS = 8, 20, 12
SHARES = """CASE
    WHEN number * 7919 % 1000 < 690 THEN 'succeeded'
    WHEN number * 7919 % 1000 < 790 THEN 'failed'
    WHEN number * 7919 % 1000 < 830 THEN 'cancelled'
    WHEN number * 7919 % 1000 < 831 THEN 'running'
    WHEN number * 7919 % 1000 < 860 THEN 'retrying'
    ELSE 'queued' END"""
"""States: 69 % succeeded, 14 % queued, 10 % failed, 4 % cancelled, 3 % retrying or running."""
FILL = f"""
INSERT INTO bus_jobs (
    id, submitter, type, queue, state, life, attempt, losses, token, priority, correlation_id,
    submitted_at, recorded_at, run_at, expires, started_at, ended_at, worker, lease_until,
    failure_code, failure_reason, progress_number, has_progress, is_pruned, message, result)
SELECT md5(number::text), 'submitter-' || number % {SUBMITTERS},
    'bench.type-' || number % {TYPES} || '.v1', 'bench.queue-' || number % {QUEUES}, state, 1,
    CASE state WHEN 'queued' THEN 0 ELSE 1 END, 0, CASE state WHEN 'queued' THEN 0 ELSE 1 END,
    CASE WHEN number % 100 = 0 THEN 5 ELSE 0 END, md5('c' || number / 3),
    submitted, submitted, CASE state WHEN 'retrying' THEN present + 3600 ELSE submitted END,
    submitted + 86400, CASE WHEN state <> 'queued' THEN submitted + 1 END,
    CASE WHEN state IN ('succeeded', 'failed', 'cancelled') THEN submitted + 2 END,
    CASE WHEN state <> 'queued' THEN 'worker-1' END,
    CASE state WHEN 'running' THEN present + 3600 END,
    CASE state WHEN 'failed' THEN 'code_' || number % 7 WHEN 'retrying' THEN 'unavailable' END,
    CASE WHEN state IN ('failed', 'retrying') THEN 'ValueError' END,
    0, false, false, message, CASE state WHEN 'succeeded' THEN message END
FROM (
    SELECT number, {SHARES} AS state, present, message,
        present - 86400 + number * 86400.0 / total AS submitted
    FROM (
        SELECT CAST(:now AS double precision) AS present, CAST(:rows AS bigint) AS total,
            CAST(:message AS bytea) AS message) AS given
    CROSS JOIN LATERAL generate_series(1, total) AS number) AS numbers
"""  # noqa: S608 - the shares are a constant


@dataclass(frozen=True)
class Measured:
    """The milliseconds of one kind of statement."""

    name: str
    milliseconds: Sequence[float]

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return percentile(sorted(self.milliseconds), 0.99)

    @property
    def has_reached(self) -> bool:
        """True if the target is reached, or if there is none."""
        return self.name == COUNTS or self.p99 <= TARGET

    def line(self) -> str:
        """Return the result as a line."""
        late = "" if self.has_reached else "  over the target"
        return (
            f"{self.name:44} p50 {statistics.median(self.milliseconds):8.2f} ms  "
            f"p99 {self.p99:8.2f} ms  {len(self.milliseconds):5} times{late}"
        )


def filters(now: float) -> dict[str, JobFilter]:
    """Return a filter of each kind, and the most usual pairs."""
    return {
        "list": JobFilter(),
        "list, queued": JobFilter(states=("queued",)),
        "list, running": JobFilter(states=("running",)),
        "list, retrying": JobFilter(states=("retrying",)),
        "list, succeeded": JobFilter(states=("succeeded",)),
        "list, failed": JobFilter(states=("failed",)),
        "list, cancelled": JobFilter(states=("cancelled",)),
        "list, waiting or running": JobFilter(states=("queued", "running", "retrying")),
        "list, a type": JobFilter(types=("bench.type-3.v1",)),
        "list, an unknown type": JobFilter(types=("bench.none.v1",)),
        "list, a queue": JobFilter(queues=("bench.queue-3",)),
        "list, an unknown queue": JobFilter(queues=("bench.none",)),
        "list, a code": JobFilter(codes=("code_3",)),
        "list, an unknown code": JobFilter(codes=("none",)),
        "list, a submitter": JobFilter(submitter="submitter-3"),
        "list, an unknown submitter": JobFilter(submitter="nobody"),
        "list, an id": JobFilter(ids=("c4ca4238a0b923820dcc509a6f75849b",), has_whole_ids=True),
        "list, the first characters of an id": JobFilter(ids=("c4ca",)),
        "list, a correlation id": JobFilter(correlation_id="b0ad3cba7f1c41d03f5fdc6c15d3a8b4"),
        "list, older than 12 hours": JobFilter(submitted_before=now - 43200),
        "list, newer than an hour": JobFilter(submitted_after=now - 3600),
        "list, failed of a type": JobFilter(states=("failed",), types=("bench.type-3.v1",)),
        "list, failed of an unknown type": JobFilter(states=("failed",), types=("bench.none.v1",)),
        "list, failed, a code, older than 12 hours": JobFilter(
            states=("failed",), codes=("code_3",), submitted_before=now - 43200
        ),
    }


async def timed(milliseconds: list[float], work: Awaitable[object]) -> object:
    """Await the work, and add its milliseconds."""
    began = time.perf_counter()
    result = await work
    milliseconds.append((time.perf_counter() - began) * 1e3)
    return result


async def measure(database: Database, claims: int, lists: int) -> list[Measured]:
    """Measure claims, lists and counts while workers claim and end jobs."""
    store, now = SqlJobStore(database), time.time()
    claimed: list[float] = []
    ended: list[float] = []
    names = itertools.cycle(f"bench.queue-{number}" for number in range(QUEUES))
    is_over = asyncio.Event()

    async def worker(name: str) -> None:
        while not is_over.is_set():
            began = time.perf_counter()
            jobs = await store.claim(next(names), worker=name, limit=BATCH, lease=30)
            claimed.append((time.perf_counter() - began) * 1e3)
            ends = [
                AttemptEnd(attempt=job.attempt_of, state="succeeded", result=job.envelope)
                for job in jobs
            ]
            if ends:
                await timed(ended, store.end(ends))
            await asyncio.sleep(PAUSE)

    found: list[Measured] = []

    async def repeated(name: str, work: Callable[[], Awaitable[object]]) -> None:
        milliseconds: list[float] = []
        for _ in range(lists):
            await timed(milliseconds, work())
        found.append(Measured(name, milliseconds))

    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(worker(f"worker-{number}"))
        while len(claimed) < claims:  # noqa: ASYNC110 - the workers count for themselves
            await asyncio.sleep(0.05)
        quiet = len(claimed)
        for name, selection in filters(now).items():
            await repeated(name, lambda chosen=selection: store.list(chosen))  # type: ignore[misc]
        page = await store.list(limit=100)
        await repeated("list, the second page", lambda: store.list(after=page[-1]))
        key = page[-1].key
        await repeated("find", lambda: store.find(key))
        await repeated(COUNTS, store.counts)
        is_over.set()
    beside = [Measured(f"claim of {BATCH}", claimed[:quiet])]
    beside.append(Measured(f"claim of {BATCH}, beside lists", claimed[quiet:]))
    beside.append(Measured(f"end of {BATCH}", ended))
    return [*beside, *found]


@contextlib.asynccontextmanager
async def filled(rows: int) -> AsyncIterator[Database]:
    """Yield the database of a store with this number of jobs."""
    with private_server() as server:
        url = server.create_database()
        async with opened(url) as database:
            await upgrade(database)
            began = time.monotonic()
            async with database.engine.begin() as connection:
                await connection.execute(
                    text(FILL), {"rows": rows, "now": time.time(), "message": message()}
                )
            server.execute("VACUUM ANALYZE bus_jobs", url.rpartition("/")[2])
            print(f"{rows:,} jobs in {time.monotonic() - began:.0f} s", flush=True)
            yield database


def message() -> bytes:
    """Return a stored message with a body of 300 bytes."""
    envelope = Envelope(
        id="0" * 32, type="bench.type-0.v1", role="job", source="submitter-0", body=b"x" * 300
    )
    return to_stored_bytes(envelope)


async def explain(database: Database, slow: set[str]) -> None:
    """Print the plans of the slow lists, and of the counts."""
    statements = {name: list_jobs(each, 100, None) for name, each in filters(time.time()).items()}
    async with database.engine.connect() as connection:
        for name, statement in {**statements, COUNTS: COUNT}.items():
            if name in slow:
                literal = statement.compile(
                    dialect=connection.dialect, compile_kwargs={"literal_binds": True}
                )
                plan = await connection.execute(
                    text(f"EXPLAIN (ANALYZE, BUFFERS) {literal}".replace(":", "\\:"))
                )
                print(f"\n{name}:", *(row[0] for row in plan), sep="\n  ")


async def run(options: argparse.Namespace) -> bool:
    """Measure, print, and return True if every p99 reaches the target."""
    async with filled(options.rows) as database:
        found = await measure(database, options.claims, options.lists)
        print(*(each.line() for each in found), f"{load()}", sep="\n")
        if options.explain:
            await explain(database, {each.name for each in found if each.p99 > TARGET})
        return all(each.has_reached for each in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return 1 if a p99 is over the target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_rows", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--claims", type=int, default=3000)
    parser.add_argument("--lists", type=int, default=60, help="repetitions of each list")
    parser.add_argument("--explain", action="store_true", help="print the plans of slow lists")
    return int(not asyncio.run(run(parser.parse_args(arguments))))


if __name__ == "__main__":
    sys.exit(main())
