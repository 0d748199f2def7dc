"""Who is measured, and how each is started."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks.environments import Absent, compiled, installed
from bus.settings import Settings

__all__ = ["AIO_PIKA", "FASTSTREAM", "ON_FASTSTREAM", "OURS", "PEERS", "PLAIN", "SIGNED", "C", "Peer", "prepare"]

OURS, SIGNED, PLAIN, ON_FASTSTREAM, AIO_PIKA, FASTSTREAM, CELERY, NAMEKO, TASKIQ, C = (
    "trunkline", "trunkline-signed", "trunkline-plain", "trunkline-faststream", "aio-pika", "faststream", "celery", "nameko", "taskiq", "c",
)  # fmt: skip
ACTORS = Path(__file__).parent / "actors"
PYDANTIC = "pydantic>=2.12,<3"
Start = Callable[[str], list[str]]
"""From a broker's URL to the command, to which the role is added."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One of those that are compared."""

    key: str
    title: str
    module: str = ""
    service: str = "bench"
    """How the names of its services begin, where it is the bus: with and without the fast lane are two."""
    packages: tuple[str, ...] = ()
    """What is in its own environment; empty: this one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    """The distributions whose versions the report names."""

    def interpreter(self) -> str:
        """The Python that runs it; `Absent` where it cannot be had."""
        return installed(self.key, self.packages) if self.packages else sys.executable

    def command(self, role: str, *more: str, url: str) -> list[str]:
        """What starts it."""
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
    """The virtual host that an AMQP URL's path names."""
    return unquote(path[1:]) or "/"


def ours() -> tuple[Peer, ...]:
    """The bus; with the fast lane and without it, where this checkout has one."""
    if "fastlane" not in Settings.model_fields:
        return (Peer(key=OURS, title="Trunkline", module="ours", versions=("aio-pika",)),)
    return (
        Peer(key=OURS, title="Trunkline", module="ours", environment={"BUS_FASTLANE": "on"}),
        Peer(key=SIGNED, title="Trunkline, signed", module="ours", environment={"BUS_AUTH": "on"}, service="signed"),
        Peer(key=PLAIN, title="Trunkline, plain path", module="ours", environment={"BUS_FASTLANE": "off"}, service="plain"),
        Peer(
            key=ON_FASTSTREAM,
            title="Trunkline on FastStream",
            module="ours",
            environment={"BENCH_TRANSPORT": "faststream"},
            service="onfaststream",
            versions=("faststream",),
        ),
    )


PEERS = {
    peer.key: peer
    for peer in (
        *ours(),
        Peer(key=AIO_PIKA, title="aio-pika, bare", module="bare", versions=("aio-pika", "aiormq")),
        Peer(key=FASTSTREAM, title="FastStream", module="fast_stream", versions=("faststream",)),
        Peer(key=CELERY, title="Celery", module="celery_tasks", packages=("celery>=5.7,<6", PYDANTIC), versions=("celery", "kombu")),
        Peer(key=NAMEKO, title="Nameko", module="nameko_service", packages=("nameko>=2.14,<3", PYDANTIC), versions=("nameko", "eventlet")),
        Peer(
            key=TASKIQ,
            title="Taskiq",
            module="taskiq_jobs",
            packages=("taskiq-aio-pika>=0.6,<0.7", PYDANTIC),
            versions=("taskiq", "taskiq-aio-pika"),
        ),
        Peer(key=C, title="C with librabbitmq"),
    )
}


def prepare(keys: set[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Those of them that can be had here, and for the others why not."""
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
