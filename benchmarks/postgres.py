"""A private PostgreSQL for durable jobs, with the durable defaults of PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.environments import Absent
from tests.postgres import PostgresCluster, find_programs

__all__ = ["SETTINGS", "private_server"]

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "autovacuum_naptime": "60",
}
"""The defaults of PostgreSQL. The cluster of the tests does not wait for the disk."""


@contextmanager
def private_server(**more: str) -> Iterator[PostgresCluster]:
    """Yield a running server; raise `Absent` if PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        raise Absent("no PostgreSQL server (Debian, Ubuntu: apt-get install postgresql)")
    cluster = PostgresCluster(programs, **{**SETTINGS, **more})
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
