"""Tables of an application in the store of its service, on each database."""

import asyncio

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select

from bus.errors import ConfigurationError
from bus.integrations.store import create_missing_tables, store_engine

TABLES = MetaData()
SHELVES = Table("shelves", TABLES, Column("number", Integer, primary_key=True))


async def test_several_processes_create_missing_tables_at_once_and_readers_see_the_rows(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_STORE", store_url)
    engines = [store_engine("library") for _ in range(4)]
    await asyncio.gather(*(create_missing_tables(each, TABLES) for each in engines))
    await create_missing_tables(engines[0], TABLES)
    reader = store_engine("library", is_reading=True)
    async with engines[0].begin() as connection:
        await connection.execute(insert(SHELVES).values(number=7))
    async with engines[1].begin() as writer, reader.connect() as connection:
        await writer.execute(insert(SHELVES).values(number=8))
        seen = (await connection.execute(select(SHELVES.c.number))).scalars().all()
    for each in (*engines, reader):
        await each.dispose()
    assert seen == [7]


async def test_tables_that_cannot_be_created_are_named(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_STORE", sqlite_url)
    engine = store_engine("library")
    async with engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(ConfigurationError, match="no table shelves"):
        await create_missing_tables(engine, TABLES)
    await engine.dispose()


def test_a_service_without_a_store_has_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUS_STORE", raising=False)
    with pytest.raises(ConfigurationError, match="BUS_STORE is not set"):
        store_engine("library")
