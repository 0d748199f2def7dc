"""Crash points of durable jobs on RabbitMQ, with SQLite and PostgreSQL."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from sqlalchemy import text

from bus.operations.brokers.private_node import PrivateNode
from bus.operations.management_api import Management
from bus.storage.sqlalchemy.upgrade import upgrade
from bus.testing.rabbitmq import with_vhost
from tests.chaos.jobs.crash_points import POINTS
from tests.chaos.jobs.crash_rounds import CrashFigures, CrashRounds
from tests.chaos.jobs.errand import EFFECTS, SERVICE
from tests.chaos.jobs.mortal_workers import MortalWorkers
from tests.databases import address_of, connected, new_sqlite_file
from tests.postgres import PostgresCluster, find_programs

__all__ = ["CrashScene", "NewDatabase", "crash_exam", "databases_of", "virtual_host"]

PROCESSES: Final = 10
"""Number of processes that are killed in one round of the long form."""
SIDE_BY_SIDE: Final = 6
"""Number of points that are run at the same time."""
API_SECONDS: Final = 60.0

NewDatabase = Callable[[str], str]
"""Function that creates a database for a point, and returns its URL."""


class CrashScene:
    """The crash points on one broker."""

    def __init__(self, node: PrivateNode, workers: MortalWorkers) -> None:
        self._node, self._workers = node, workers
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def run(
        self, points: Sequence[str], create: NewDatabase, *, rounds: int, processes: int
    ) -> dict[str, CrashFigures]:
        """Run the rounds of each point, several points side by side."""
        async with asyncio.TaskGroup() as group:
            tasks = {
                point: group.create_task(self._run(point, create, rounds, processes))
                for point in points
            }
        return {point: task.result() for point, task in tasks.items()}

    async def _run(
        self, point: str, create: NewDatabase, rounds: int, processes: int
    ) -> CrashFigures:
        async with self._places, virtual_host(self._node) as url:
            store = await asyncio.to_thread(create, point)
            each = CrashRounds(
                point, url=url, address=address_of(store), store=store, workers=self._workers
            )
            figures = await each.run(rounds, processes)
            print(f"  {address_of(store).kind}, {point}: {figures}", flush=True)
            return figures


@asynccontextmanager
async def virtual_host(node: PrivateNode) -> AsyncIterator[str]:
    """Create an empty virtual host, yield its URL, and remove it afterwards."""
    management = Management(node.management_url, node.url, timeout=API_SECONDS)
    name = f"jobs-{secrets.token_hex(6)}"
    await management.add_vhost(name)
    try:
        yield with_vhost(node.url, name)
    finally:
        await management.delete_vhost(name)


async def databases_of(directory: Path, cluster: PostgresCluster | None) -> dict[str, NewDatabase]:
    """Return the functions that create databases, by kind of store.

    The tables are created once for each kind, and copied.
    """
    first = new_sqlite_file(directory / "first.db")
    await _create_tables(f"sqlite:///{first.path}")

    def new_file(point: str) -> str:
        path = directory / f"{point}.db"
        shutil.copy(directory / "first.db", path)
        path.chmod(0o600)
        return f"sqlite:///{path}"

    found: dict[str, NewDatabase] = {"sqlite": new_file}
    if cluster is not None:
        url = cluster.create_database()
        await _create_tables(url)
        template = url.rpartition("/")[2]
        found["postgresql"] = lambda _point: cluster.create_database(template)
    return found


async def _create_tables(url: str) -> None:
    async with connected(address_of(url)) as database:
        await upgrade(database, SERVICE)
        await database.write(lambda connection: connection.execute(text(EFFECTS)))


async def crash_exam(node: PrivateNode, directory: Path, *, times: int) -> dict[str, object]:
    """Kill processes at each point at least `times` times, and return the figures for the page."""
    found: dict[str, object] = {}
    programs = find_programs()
    async with AsyncExitStack() as stack:
        cluster = None
        if programs is not None:
            cluster = PostgresCluster(programs)
            stack.push_async_callback(asyncio.to_thread, cluster.stop)
            cluster.start()  # in the main thread: the server ends with the thread that starts it
        workers = await stack.enter_async_context(MortalWorkers())
        scene = CrashScene(node, workers)
        for kind, create in (await databases_of(directory, cluster)).items():
            figures = await scene.run(
                POINTS, create, rounds=-(-times // PROCESSES), processes=PROCESSES
            )
            found |= {f"{kind}, {point}": asdict(each) for point, each in figures.items()}
    return found
