"""Databases for the tests of the store."""

from pathlib import Path

import pytest

from bus.messaging.store_address import StoreAddress, parse_store
from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file


def address_of(url: str) -> StoreAddress:
    address = parse_store(url)
    assert address is not None
    return address


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    create_sqlite_file(address_of(url))
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(name))
