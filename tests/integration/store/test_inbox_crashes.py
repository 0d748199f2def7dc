"""A process that is killed anywhere in a transactional handler: each effect exists exactly once."""

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus import Bus
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.store import SqlStore
from bus.storage.sqlalchemy.upgrade import upgrade
from bus.testing import MemoryBroker, MemoryTransport
from bus.testing.explicit_settings import ExplicitSettings
from tests.integration.store.doomed import POINTS, SERVICE, publish, router_of
from tests.integration.store.test_database import database_at
from tests.polling import until

TIMES = 3
AN_HOUR = 3600.0
QUEUE = f"{SERVICE}.events.paper.arrived.v1"


async def create_effects(connection: AsyncConnection) -> None:
    await connection.execute(text("CREATE TABLE effects (id TEXT, part TEXT)"))


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = database_at(store_url)
    await upgrade(database, SERVICE)
    await database.write(create_effects)
    yield database
    await database.close()


@pytest.fixture
def doomed(store_url: str, database: Database) -> Iterator[subprocess.Popen[str]]:
    """The command that forks a process for each line, and kills it."""
    command = [sys.executable, "-m", "tests.integration.store.doomed", store_url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def kill_at(doomed: subprocess.Popen[str], point: str, id_: str) -> int:
    """Handle an event in a process that is killed at a point. Return the signal."""
    assert doomed.stdin is not None
    assert doomed.stdout is not None
    doomed.stdin.write(f"{point} {id_}\n")
    doomed.stdin.flush()
    return int(doomed.stdout.readline())


async def effects_in(database: Database) -> dict[str, list[str]]:
    """Return the parts that handlers have written for each message."""

    async def work(connection: AsyncConnection) -> dict[str, list[str]]:
        rows = await connection.execute(text("SELECT id, part FROM effects ORDER BY part"))
        found: dict[str, list[str]] = {}
        for id_, part in rows:
            found.setdefault(id_, []).append(part)
        return found

    return await database.read(work)


async def test_a_process_that_is_killed_at_any_point_leaves_exactly_one_effect(
    doomed: subprocess.Popen[str], database: Database, store_url: str
) -> None:
    ids = [f"{point}-{number}" for point in POINTS for number in range(TIMES)]
    for id_ in ids:
        assert kill_at(doomed, id_.rpartition("-")[0], id_) == signal.SIGKILL
    committed = {id_ for id_ in ids if id_.startswith("after-commit")}
    assert (await effects_in(database)).keys() == committed
    settings, broker = ExplicitSettings(auth="off", store=SecretStr(store_url)), MemoryBroker()
    # All leases of the killed processes have expired by this clock.
    store = SqlStore(settings, SERVICE, clock=lambda: time.time() + AN_HOUR)
    async with (
        Bus(SERVICE, settings=settings, transport=MemoryTransport(broker), store=store) as bus,
        bus.serving(router_of()),
    ):
        for id_ in ids:  # as the broker delivers them again
            await publish(broker, id_)
        await until(lambda: broker.depth(QUEUE) + broker.unacked(QUEUE) == 0, "the acks")
    assert await effects_in(database) == {id_: ["cover", "pages"] for id_ in ids}
    assert broker.depth(f"{QUEUE}.dead") == 0
