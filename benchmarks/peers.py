"""The measured peers, and how each is started."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks.environments import Absent, compiled, installed
from bus.settings import Settings

__all__ = [
    "AIO_PIKA",
    "CELERY_STORED",
    "DBOS",
    "FASTSTREAM",
    "FEW_HANDLERS",
    "NO_STORE",
    "ON_FASTSTREAM",
    "ON_POSTGRES",
    "ON_SQLITE",
    "OURS",
    "PEERS",
    "PGQUEUER",
    "PLAIN",
    "PROCRASTINATE",
    "SIGNED",
    "TASKIQ_STORED",
    "C",
    "Peer",
    "prepare",
]

OURS, SIGNED, PLAIN = "trunkline", "trunkline-signed", "trunkline-plain"
ON_FASTSTREAM = "trunkline-faststream"
AIO_PIKA, FASTSTREAM, CELERY = "aio-pika", "faststream", "celery"
NAMEKO, TASKIQ, C = "nameko", "taskiq", "c"
NO_STORE, ON_POSTGRES, ON_SQLITE = "trunkline-no-store", "trunkline-postgres", "trunkline-sqlite"
FEW_HANDLERS = "trunkline-few"
CELERY_STORED, TASKIQ_STORED = "celery-stored", "taskiq-stored"
PROCRASTINATE, PGQUEUER, DBOS = "procrastinate", "pgqueuer", "dbos"
ACTORS = Path(__file__).parent / "actors"
PYDANTIC = "pydantic>=2.12,<3"
Start = Callable[[str], list[str]]
"""A function from a broker's URL to the command, to which the role is added."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One of the compared programs."""

    key: str
    title: str
    module: str = ""
    service: str = "bench"
    """The prefix of its services' names, if it is the bus: each variant needs names of its own."""
    packages: tuple[str, ...] = ()
    """The packages of its own environment; empty for this environment."""
    environment: Mapping[str, str] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    """The distributions of which the report names the versions."""

    def interpreter(self) -> str:
        """Return the Python that runs it; raise `Absent` if it is not available."""
        return installed(self.key, self.packages) if self.packages else sys.executable

    def command(self, role: str, *more: str, url: str) -> list[str]:
        """Return the command that starts it in a role."""
        if self.key == C:
            to = urlsplit(url)
            where = [to.hostname or "localhost", str(to.port or 5672)]
            return [
                compiled(ACTORS / "limit.c"),
                role,
                *where,
                *map(unquote, (to.username or "guest", to.password or "guest")),
                vhost(to.path),
            ]
        return [self.interpreter(), "-m", f"benchmarks.actors.{self.module}", role, *more]


def vhost(path: str) -> str:
    """Return the virtual host in the path of an AMQP URL."""
    return unquote(path[1:]) or "/"


def ours() -> tuple[Peer, ...]:
    """Return the variants of the bus, or only one if this checkout has no fast lane."""
    if "fastlane" not in Settings.model_fields:
        return (Peer(key=OURS, title="Trunkline", module="ours", versions=("aio-pika",)),)
    return (
        Peer(key=OURS, title="Trunkline", module="ours", environment={"BUS_FASTLANE": "on"}),
        Peer(
            key=SIGNED,
            title="Trunkline, signed",
            module="ours",
            environment={"BUS_AUTH": "on"},
            service="signed",
        ),
        Peer(
            key=PLAIN,
            title="Trunkline, plain path",
            module="ours",
            environment={"BUS_FASTLANE": "off"},
            service="plain",
        ),
        Peer(
            key=ON_FASTSTREAM,
            title="Trunkline on FastStream",
            module="ours",
            environment={"BENCH_TRANSPORT": "faststream"},
            service="onfaststream",
            versions=("faststream",),
        ),
    )


def durable() -> tuple[Peer, ...]:
    """Return the variants of the bus and the peers of the workload about durable jobs."""
    return (
        Peer(key=ON_POSTGRES, title="Trunkline, PostgreSQL", module="ours_jobs", service="stored"),
        Peer(
            key=FEW_HANDLERS,
            title="Trunkline, PostgreSQL, 10 handlers",
            module="ours_jobs",
            service="few",
            environment={"BENCH_CONCURRENCY": "10"},
        ),
        Peer(key=ON_SQLITE, title="Trunkline, SQLite", module="ours_jobs", service="embedded"),
        Peer(key=NO_STORE, title="Trunkline, no store", module="ours_jobs", service="unstored"),
        Peer(
            key=CELERY_STORED,
            title="Celery, stored results",
            module="celery_stored",
            packages=("celery[sqlalchemy]>=5.7,<6", "psycopg2-binary>=2.9,<3", PYDANTIC),
            versions=("celery", "sqlalchemy", "psycopg2-binary"),
        ),
        Peer(
            key=TASKIQ_STORED,
            title="Taskiq, stored results",
            module="taskiq_stored",
            packages=("taskiq-aio-pika>=0.6,<0.7", "taskiq-postgres[asyncpg]>=0.9,<1", PYDANTIC),
            versions=("taskiq", "taskiq-aio-pika", "taskiq-postgres"),
        ),
        Peer(
            key=PROCRASTINATE,
            title="procrastinate",
            module="procrastinate_jobs",
            packages=("procrastinate>=3.10,<4", PYDANTIC),
            versions=("procrastinate", "psycopg"),
        ),
        Peer(
            key=PGQUEUER,
            title="PgQueuer",
            module="pgqueuer_jobs",
            packages=("pgqueuer[asyncpg]>=1.6,<2", PYDANTIC),
            versions=("pgqueuer", "asyncpg"),
        ),
        Peer(
            key=DBOS,
            title="DBOS",
            module="dbos_jobs",
            packages=("dbos>=3.4,<4", PYDANTIC),
            versions=("dbos", "psycopg"),
        ),
    )


PEERS = {
    peer.key: peer
    for peer in (
        *ours(),
        Peer(key=AIO_PIKA, title="aio-pika, bare", module="bare", versions=("aio-pika", "aiormq")),
        Peer(key=FASTSTREAM, title="FastStream", module="fast_stream", versions=("faststream",)),
        Peer(
            key=CELERY,
            title="Celery",
            module="celery_tasks",
            packages=("celery>=5.7,<6", PYDANTIC),
            versions=("celery", "kombu"),
        ),
        Peer(
            key=NAMEKO,
            title="Nameko",
            module="nameko_service",
            packages=("nameko>=2.14,<3", PYDANTIC),
            versions=("nameko", "eventlet"),
        ),
        Peer(
            key=TASKIQ,
            title="Taskiq",
            module="taskiq_jobs",
            packages=("taskiq-aio-pika>=0.6,<0.7", PYDANTIC),
            versions=("taskiq", "taskiq-aio-pika"),
        ),
        Peer(key=C, title="C with librabbitmq"),
        *durable(),
    )
}


def prepare(keys: set[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the peers that are available here, and the reasons for the others' absence."""
    here: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for key, peer in PEERS.items():
        if key not in keys:
            continue
        try:
            peer.command("serve", url="amqp://localhost")
        except Absent as missing:
            absent[key] = missing.why
        else:
            here[key] = peer
    return here, absent
