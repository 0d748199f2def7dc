"""The migrations of the store on SQLite and PostgreSQL."""

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.identity import Identity, read_identity
from bus.storage.sqlalchemy.migrations import HEAD, OLDEST_REVISION, VERSION_TABLE
from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file
from bus.storage.sqlalchemy.tables import metadata
from bus.storage.sqlalchemy.upgrade import upgrade
from tests.integration.store.conftest import address_of
from tests.integration.store.test_database import database_at
from tests.postgres import PostgresCluster

POSTGRESQL_SCHEMA = """
SELECT 'column', table_name, column_name, data_type, is_nullable,
       coalesce(collation_name, ''), coalesce(column_default, '')
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '', ''
FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname,
       pg_get_constraintdef(oid), '', '', ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', '', ''
FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', '', proname, prosrc, '', '', ''
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""
SQLITE_SCHEMA = "SELECT type, tbl_name, name, sql FROM sqlite_master"


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = database_at(store_url)
    yield database
    await database.close()


async def schema(database: Database) -> list[str]:
    """Everything that the catalogue says, without white space and without Alembic's table."""

    async def select(connection: AsyncConnection) -> list[str]:
        statement = SQLITE_SCHEMA if database.is_sqlite else POSTGRESQL_SCHEMA
        return [
            re.sub(r"\s+", "", "|".join(map(str, row))).lower()
            for row in await connection.execute(text(statement))
        ]

    return sorted(line for line in await database.read(select) if VERSION_TABLE not in line)


async def test_the_migrations_create_exactly_the_tables_that_the_store_uses(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if database.is_sqlite:
        url = f"sqlite:///{tmp_path / 'other.db'}"
        create_sqlite_file(address_of(url))
    else:
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        url = cluster.create_database()
    other = database_at(url)
    try:
        await upgrade(database)

        def create(connection: Connection) -> None:
            metadata.create_all(connection)

        async def create_all(connection: AsyncConnection) -> None:
            await connection.run_sync(create)

        await other.write(create_all)
        migrated = await schema(database)
        assert migrated == await schema(other)
        # The comparison sees the parts that differ between databases.
        assert any("bus_jobs_moves" in line for line in migrated)
        assert any("ix_bus_jobs_claim" in line and "desc" in line for line in migrated)
    finally:
        await other.close()


async def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    first = await upgrade(database, "library")
    before = await schema(database)
    second = await upgrade(database, "other")
    assert first.before.revision is None
    assert first.after.revision == HEAD
    assert second.before == second.after == first.after
    assert first.after.service == "library"
    assert await schema(database) == before


async def test_two_upgrades_at_the_same_time_make_one_store(store_url: str) -> None:
    databases = [database_at(store_url) for _ in range(4)]
    try:
        done = await asyncio.gather(*(upgrade(each) for each in databases))
        assert len({each.after.id for each in done}) == 1
        assert [each.before.revision for each in done].count(None) == 1
    finally:
        for each in databases:
            await each.close()


async def test_an_upgrade_that_fails_leaves_no_table(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise KeyError

    monkeypatch.setattr("bus.storage.sqlalchemy.upgrade._new_id", fail)
    with pytest.raises(TypeError):
        await upgrade(database)
    assert await schema(database) == []
    assert await database.read(read_identity) == Identity()


async def test_an_upgrade_leaves_a_newer_store_alone(database: Database) -> None:
    await upgrade(database)

    async def set_version(connection: AsyncConnection) -> None:
        await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    await database.write(set_version)
    done = await upgrade(database)
    assert done.after.revision == done.before.revision == "9999"
    assert done.after.is_newer


def test_the_revisions_are_one_line_that_ends_at_the_one_that_the_bus_uses() -> None:
    config = Config()
    config.set_main_option("script_location", "bus.storage.sqlalchemy:migrations")
    script = ScriptDirectory.from_config(config)
    revisions = [each.revision for each in script.walk_revisions()]
    assert script.get_heads() == [HEAD]
    assert revisions == sorted(revisions, reverse=True)
    assert OLDEST_REVISION in revisions
    # Each file of the folder is a part of the package, so the wheel has it.
    folder = files("bus.storage.sqlalchemy.migrations") / "versions"
    assert sum(each.name.startswith("revision_") for each in folder.iterdir()) == len(revisions)
