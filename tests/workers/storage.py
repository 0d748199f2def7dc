"""A store in a file for the tests of the workers."""

from pathlib import Path

from bus.storage.sqlalchemy.upgrade import upgrade
from tests.databases import connected, new_sqlite_file

__all__ = ["new_store"]


async def new_store(path: Path, service: str) -> str:
    """Create the store of a service, and return its URL."""
    async with connected(new_sqlite_file(path)) as database:
        await upgrade(database, service)
    return f"sqlite:///{path}"
