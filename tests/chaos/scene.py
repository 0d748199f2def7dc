"""The scene of a campaign: a node, a virtual host, a sender and workers.

A proxy is in front of the sender, and another one in front of the workers.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlsplit, urlunsplit

import aiormq

from bus.operations.brokers.ports import accepts
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.management_api import Management
from bus.testing.rabbitmq import with_vhost
from bus.transports.rabbitmq.queue_depth import depth_by
from tests.chaos.actor import Actor
from tests.chaos.contracts import SERVICE
from tests.chaos.journal import Tail
from tests.chaos.proxy import FaultyProxy
from tests.chaos.sender import Order
from tests.chaos.watched import NO_NUMBER

__all__ = ["OURS", "Party", "Scene"]

LOOK = 0.01
"""Seconds between two checks of a port that is about to open."""
PATIENCE = 60.0
"""Seconds for one call of the management API; on an idle machine it takes milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Party:
    """The product under test: its senders and workers."""

    name: str
    worker: Callable[[Path, str], list[str]]
    """Function that returns the command of a worker for a journal and a service."""
    sender: Callable[[Path, Order], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    order: Mapping[str, object] = field(default_factory=dict)
    """Fields of its orders that differ from the default."""
    confirms: bool = True
    """True if its senders request confirms; otherwise none can be dropped."""
    stops: bool = True
    """True if its workers stop in order at the end, and leave no message in a queue."""


OURS = Party(
    name="Trunkline",
    worker=lambda journal, service: [
        sys.executable,
        "-m",
        "tests.chaos.worker",
        str(journal),
        service,
    ],
    sender=lambda journal, order: [
        sys.executable,
        "-m",
        "tests.chaos.sender",
        str(journal),
        order.model_dump_json(),
    ],
)


class Letter(NamedTuple):
    """A dead letter as any client can read it."""

    number: int
    headers: dict[str, Any]


class Scene:
    """A scene that begins empty, and leaves nothing behind."""

    def __init__(
        self,
        node: PrivateNode,
        directory: Path,
        *,
        party: Party = OURS,
        environment: Mapping[str, str] | None = None,
        ways: Callable[[], FaultyProxy] | None = None,
        hosts: Sequence[int] = (),
    ) -> None:
        """Prepare the scene.

        Args:
            node: Broker.
            directory: Directory of the journals and logs.
            party: Product under test.
            environment: Additional environment of every process.
            ways: Function that returns a proxy for each side; by default a proxy to `node`.
            hosts: Ports of a cluster's nodes. If given, each process gets the list of these nodes
                as its `BUS_URL`, without a proxy.
        """
        self.node = node
        self.vhost = f"chaos-{secrets.token_hex(6)}"
        self.url = with_vhost(node.url, self.vhost)
        self.management = Management(node.management_url, node.url, timeout=PATIENCE)
        self.directory = directory
        self.party = party
        self.sends, self.work = Tail(directory / "sends"), Tail(directory / "work")
        ways = ways or (lambda: FaultyProxy("127.0.0.1", node.port))
        self.before_sender, self.before_workers = ways(), ways()
        self.sender: Actor | None = None
        self.workers: list[Actor] = []
        self.exits: list[int] = []
        """Exit codes of the workers that were stopped."""
        self.back: list[float] = []
        """Times at which the broker accepted connections or publishes again (monotonic clock)."""
        self._hosts = hosts
        self._environment = {**party.environment, **(environment or {})}
        self._names = 0
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.management.add_vhost(self.vhost)
        for proxy in (self.before_sender, self.before_workers):
            await proxy.open()
            self._closing.push_async_callback(proxy.close)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in [*self.workers, *([self.sender] if self.sender else [])]:
            await actor.kill()
        await self._closing.aclose()
        if self.node.running:
            await self.management.delete_vhost(self.vhost)

    # --- Processes ---

    async def add_worker(self, service: str = SERVICE, journal: str = "work") -> None:
        """Start another worker, and wait until it is ready."""
        self._names += 1
        command = self.party.worker(self.directory / journal, service)
        self.workers.append(
            await self._started(f"worker-{self._names}", command, self.before_workers)
        )

    async def start_sender(self, order: Order) -> Actor:
        """Start the sender, which begins to send at once."""
        self.sender = await self._started(
            "sender", self.party.sender(self.directory / "sends", order), self.before_sender
        )
        return self.sender

    async def _started(self, name: str, command: list[str], proxy: FaultyProxy) -> Actor:
        environment = {
            "BUS_URL": through(self.url, self._hosts or [proxy.port]),
            "BUS_LOG_LEVEL": "warning",
            **self._environment,
        }
        return await Actor.started(name, command, environment, self.directory)

    async def replace_workers(self) -> None:
        """Kill all workers, and start a new one."""
        for worker in self.workers:
            await worker.kill()
        self.workers.clear()
        await self.add_worker()

    async def stop_worker(self, worker: Actor) -> None:
        """Stop a worker by SIGTERM, and record its exit code."""
        self.workers.remove(worker)
        try:
            self.exits.append(await worker.stopped())
        finally:
            await worker.kill()

    # --- Broker ---

    async def returns(self, starting: Awaitable[None]) -> None:
        """Wait until the broker has stopped and started, and record when it accepts connections."""
        task = asyncio.ensure_future(starting)
        while await asyncio.to_thread(accepts, self.node.port) and not task.done():
            await asyncio.sleep(LOOK)
        while not await asyncio.to_thread(accepts, self.node.port) and not task.done():
            await asyncio.sleep(LOOK)
        self.back.append(time.monotonic())
        await task

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API with this virtual host for `{}` in a path: `policies/{}/name`."""
        return await self.management.call(method, path.format(quote(self.vhost, safe="")), body)

    async def queues(self) -> list[str]:
        """Return the names of all queues."""
        return [queue["name"] for queue in await self.api("GET", "queues/{}?disable_stats=true")]

    async def dead(self) -> set[int]:
        """Return the numbers of all dead letters, which stay in their queues."""
        return {letter.number for letter in await self.dead_letters()}

    async def dead_letters(self) -> list[Letter]:
        """Return all dead letters, which stay in their queues."""
        found: list[Letter] = []
        connection = await aiormq.connect(self.url)
        try:
            for name in await self.queues():
                if name.endswith(".dead"):
                    channel = await connection.channel()
                    while (message := await channel.basic_get(name)).delivery_tag:
                        found.append(
                            Letter(
                                _number(message.body), dict(message.header.properties.headers or {})
                            )
                        )
                    await channel.basic_nack(0, multiple=True, requeue=True)
                    await channel.close()
        finally:
            await connection.close()
        return found

    async def waiting(self) -> dict[str, int]:
        """Return the number of messages in each queue that must be empty at the end."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            names = [
                name
                for name in await self.queues()
                if not any(part in name for part in (".dead", ".replies.", ".control."))
            ]
            return {name: (await depth_by(channel, name)).ready for name in names}
        finally:
            await connection.close()


def _number(body: bytes) -> int:
    """Return the ledger's number; `NO_NUMBER` if the body is not a campaign's message."""
    try:
        return int(json.loads(body)["number"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return NO_NUMBER


def through(url: str, ports: Sequence[int]) -> str:
    """Return the broker's URL with these ports of this machine as its hosts."""
    parts = urlsplit(url)
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{hosts}"))
