"""Stores for the jobs of the demonstration's workers, in files that are removed at its end."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec

from workers.demo.process import output_of

__all__ = ["opened_stores", "packages_of_stores"]

PACKAGES = ("aiosqlite", "alembic", "sqlalchemy")
LEASE = "5"
"""Seconds after which the new worker takes over the job of the killed one."""


def packages_of_stores() -> bool:
    """Return True if the packages of the extra `store` are installed."""
    return all(find_spec(each) is not None for each in PACKAGES)


@contextlib.asynccontextmanager
async def opened_stores(services: Sequence[str]) -> AsyncIterator[dict[str, str]]:
    """Create a store for each service, and yield the variables that name it.

    Raise `Unavailable` if a store cannot be created.
    """
    with tempfile.TemporaryDirectory(prefix="trunkline-stores-") as directory:
        variables = {
            "BUS_STORE": f"sqlite:///{directory}/{{service}}.db",
            "BUS_JOB_LEASE": LEASE,
        }
        await asyncio.gather(*(_create(service, variables) for service in services))
        yield variables


async def _create(service: str, variables: dict[str, str]) -> None:
    await output_of("bus.cli", "store", "upgrade", "--service", service, environment=variables)
