"""The checks of a store when a service opens it."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import ConfigurationError, Unavailable
from bus.messaging.jobs.pauses import Pause
from bus.settings import load_settings
from bus.storage.sqlalchemy.administration import StoreAdministration
from bus.storage.sqlalchemy.migrations import VERSION_TABLE
from bus.storage.sqlalchemy.sqlite_engine import BUSY_SECONDS
from bus.storage.sqlalchemy.store import SqlStore
from bus.storage.sqlalchemy.upgrade import upgrade
from tests.integration.store.conftest import address_of
from tests.integration.store.test_database import database_at
from tests.postgres import PostgresCluster


def store_at(url: str, service: str = "library") -> SqlStore:
    return SqlStore(load_settings(auth="off", store=url), service)


def file_of(url: str) -> Path:
    return Path(address_of(url).path or "")


async def create(url: str, service: str = "") -> None:
    database = database_at(url)
    await upgrade(database, service)
    await database.close()


async def execute(url: str, *statements: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        for each in statements:
            await connection.execute(text(each))

    database = database_at(url)
    await database.write(work)
    await database.close()


@asynccontextmanager
async def opened(url: str, service: str = "library") -> AsyncIterator[SqlStore]:
    store = store_at(url, service)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def refusal(url: str, service: str = "library") -> str:
    with pytest.raises(ConfigurationError) as caught:
        async with opened(url, service):
            pass
    return str(caught.value)


async def problems(url: str) -> tuple[str, ...]:
    """Return what `bus store check` finds."""
    administration = StoreAdministration(lambda: address_of(url))
    try:
        return (await administration.check()).problems
    finally:
        await administration.close()


async def test_the_first_service_that_opens_a_store_owns_it(store_url: str) -> None:
    await create(store_url)
    async with opened(store_url) as first, opened(store_url) as second:
        assert first.id == second.id != ""
    found = await refusal(store_url, "office")
    assert "belongs to the service 'library', but this process is 'office'" in found
    assert "set BUS_STORE to another database, and run `bus store upgrade`." in found


async def test_a_store_without_tables_is_refused_with_the_command(store_url: str) -> None:
    found = await refusal(store_url)
    assert found.startswith(f"the store {address_of(store_url).place} has no tables of the bus.")
    assert found.endswith("Run `bus store upgrade` to create them.")


async def test_a_store_that_is_behind_is_refused_with_the_command(store_url: str) -> None:
    await create(store_url)
    await execute(store_url, f"UPDATE {VERSION_TABLE} SET version_num = '0000'")
    found = await refusal(store_url)
    assert "has revision 0000, but this version of the bus needs 0001." in found
    assert found.endswith("Run `bus store upgrade`.")


async def test_a_store_that_is_ahead_is_refused_only_if_this_version_cannot_use_it(
    store_url: str,
) -> None:
    await create(store_url)
    await execute(store_url, f"UPDATE {VERSION_TABLE} SET version_num = '0009'")
    async with opened(store_url):
        pass
    await execute(store_url, "UPDATE bus_store SET oldest_revision = '0008'")
    found = await refusal(store_url)
    assert "has revision 0009 of a newer version of the bus" in found
    assert found.endswith("Run `pip install --upgrade trunkline`.")


async def test_a_file_of_sqlite_that_another_process_locks_is_refused(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(sqlite_url)
    monkeypatch.setattr("bus.storage.sqlalchemy.sqlite_engine.BUSY_SECONDS", 0.1)
    other = sqlite3.connect(address_of(sqlite_url).path or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    found = await refusal(sqlite_url)
    other.close()
    assert "another process has locked it for too long. Run `bus store check`" in found
    assert BUSY_SECONDS >= 5


async def test_a_table_of_postgresql_that_another_transaction_locks_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(postgres_url)
    monkeypatch.setattr("bus.storage.sqlalchemy.opening.LOCK_SECONDS", 0.1)
    database = database_at(postgres_url)
    async with database.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE bus_store IN ACCESS EXCLUSIVE MODE"))
        found = await refusal(postgres_url)
    await database.close()
    assert "another transaction has locked its tables for too long" in found


async def test_a_server_of_postgresql_that_is_read_only_is_refused(
    postgres: PostgresCluster, postgres_url: str
) -> None:
    await create(postgres_url)
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    found = await refusal(postgres_url)
    assert "it is read-only. Use the address of the primary server" in found


async def test_a_user_of_postgresql_without_rights_is_refused_with_the_statement(
    postgres: PostgresCluster, postgres_url: str
) -> None:
    await create(postgres_url)
    database = postgres_url.rpartition("/")[2]
    postgres.execute("DROP ROLE IF EXISTS reader")
    postgres.execute("CREATE ROLE reader LOGIN")
    tables = f"{VERSION_TABLE}, bus_store"
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO reader", database)
    url = postgres_url.replace("bus:secret", "reader")
    try:
        found = await refusal(url)
        assert await problems(url) == (found,)
    finally:
        postgres.execute("DROP OWNED BY reader", database)
        postgres.execute("DROP ROLE reader")
    assert "the user reader lacks rights on bus_jobs, bus_inbox" in found
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON bus_jobs, bus_inbox" in found
    assert "bus_store" not in found


async def test_a_user_of_postgresql_without_any_right_finds_statements_that_suffice(
    postgres: PostgresCluster, postgres_url: str
) -> None:
    await create(postgres_url)
    database, user = postgres_url.rpartition("/")[2], '"Copy-Worker"'
    postgres.execute(f"CREATE ROLE {user} LOGIN")
    url = postgres_url.replace("bus:secret", "Copy-Worker")
    try:
        found = await refusal(url)
        assert await problems(url) == (found,)
        _, _, grants = found.partition("Run as the owner of the tables: ")
        postgres.execute(grants, database)
        async with opened(url):
            pass
    finally:
        postgres.execute(f"DROP OWNED BY {user}", database)
        postgres.execute(f"DROP ROLE {user}")
    assert f"GRANT SELECT ON {VERSION_TABLE} TO {user};" in grants


async def test_a_database_of_postgresql_that_does_not_exist_is_refused(
    postgres: PostgresCluster,
) -> None:
    found = await refusal(postgres.url("nowhere"))
    assert found.endswith("the database does not exist. Create it, or correct BUS_STORE.")


async def test_a_server_that_is_away_is_unavailable_and_not_a_wrong_setting(
    private_postgres: PostgresCluster,
) -> None:
    url = private_postgres.create_database()
    private_postgres.shut_down()
    with pytest.raises(Unavailable, match=r"cannot be reached \(ECONNREFUSED\)"):
        await store_at(url).open()


async def test_a_file_of_sqlite_that_others_may_read_is_refused_with_the_command(
    sqlite_url: str,
) -> None:
    path = file_of(sqlite_url)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    found = await refusal(sqlite_url)
    assert found == (
        f"BUS_STORE: the file {path} has mode 644. Other users must not access it, because it has "
        f"messages: run `chmod o= {path}`."
    )


async def test_a_missing_file_of_sqlite_is_refused_with_the_command(tmp_path: Path) -> None:
    found = await refusal(f"sqlite:///{tmp_path / 'none.db'}")
    assert found.endswith(
        "none.db does not exist. Run `bus store upgrade` to create it, or correct the path."
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
async def test_a_file_of_sqlite_that_is_read_only_is_refused(sqlite_url: str) -> None:
    await create(sqlite_url)
    file_of(sqlite_url).chmod(0o400)
    assert "is read-only for this user" in await refusal(sqlite_url)


async def test_a_relative_path_names_its_folder_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = await refusal("sqlite:///none.db")
    assert f"the file none.db (a relative path, from {tmp_path}) does not exist" in found


async def test_a_file_that_is_not_a_database_is_refused(sqlite_url: str) -> None:
    file_of(sqlite_url).write_bytes(b"no database" * 1000)
    assert "the file is not a database of SQLite" in await refusal(sqlite_url)


async def test_a_store_can_be_opened_again(store_url: str) -> None:
    await create(store_url)
    store = store_at(store_url)
    for _ in range(2):
        await store.open()
        assert await store.pauses() == []
        await store.close()
    await store.close()


async def test_instances_see_the_beats_of_each_other_until_they_stop(store_url: str) -> None:
    await create(store_url)
    async with opened(store_url) as first, opened(store_url) as second:
        began = await first.now()
        await first.beat("a", recorded_until=1.0)
        await second.beat("b", recorded_until=2.0)
        seen = {each.instance: each for each in await first.beat("a", recorded_until=3.0)}
        assert {name: each.recorded_until for name, each in seen.items()} == {"a": 3.0, "b": 2.0}
        assert all(began <= each.seen_at <= began + 60 for each in seen.values())
        await second.forget_instance("b")
        assert [each.instance for each in await first.beat("a", recorded_until=3.0)] == ["a"]


async def test_a_pause_is_stored_for_all_instances_until_it_ends(store_url: str) -> None:
    await create(store_url)
    async with opened(store_url) as first, opened(store_url) as second:
        now = await first.now()
        lasting = Pause(queue="library.scan", by="ida", reason="a\0b", at=now)
        ended = Pause(queue="library.sort", by="ida", reason="", at=now, until=now - 1)
        await first.pause(ended)
        await first.pause(Pause(queue="library.scan", by="bo", reason="", at=now))
        await first.pause(lasting)
        assert await second.pauses() == [lasting]
        assert await second.resume("library.scan")
        assert not await second.resume("library.scan")
        assert await first.pauses() == []
