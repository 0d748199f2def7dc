"""Where a campaign plays: a node, a virtual host of its own, a sender and workers, and a proxy before each side."""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
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
from tests.broker import with_vhost
from tests.chaos.actor import Actor
from tests.chaos.contracts import SERVICE
from tests.chaos.journal import Tail
from tests.chaos.proxy import FaultyProxy
from tests.chaos.sender import Order
from tests.chaos.watched import NOBODY

__all__ = ["OURS", "Party", "Scene"]

LOOK = 0.01
"""Seconds between two looks at a port that is to open."""
PATIENCE = 60.0
"""Seconds for one call of the management API; on a quiet machine it takes milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Party:
    """Whose senders and workers play."""

    name: str
    worker: Callable[[Path, str], list[str]]
    """The command that serves as this service, and writes into this journal."""
    sender: Callable[[Path, Order], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    order: Mapping[str, object] = field(default_factory=dict)
    """What its orders have that others have not."""
    confirms: bool = True
    """Whether its senders ask for confirms; those of others cannot be swallowed."""
    stops: bool = True
    """Whether its workers end in order at the end, and leave nothing in a queue."""


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
    """A dead letter as any client sees it."""

    number: int
    headers: dict[str, Any]


class Scene:
    """Begins empty, ends with nothing left."""

    def __init__(
        self,
        node: PrivateNode,
        directory: Path,
        *,
        party: Party = OURS,
        environment: Mapping[str, str] | None = None,
        ways: Callable[[], FaultyProxy] | None = None,
    ) -> None:
        """`environment` is added to that of every process. `ways` makes what stands in front of a side, where it is not one node."""
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
        """Exit codes of the workers that were asked to stop."""
        self.back: list[float] = []
        """When the broker took connections, or publishes, again: seconds of the monotonic clock."""
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

    # --- processes -------------------------------------------------------------------------------------------------

    async def add_worker(self, service: str = SERVICE, journal: str = "work") -> None:
        """One more, ready."""
        self._names += 1
        command = self.party.worker(self.directory / journal, service)
        self.workers.append(
            await self._started(f"worker-{self._names}", command, self.before_workers)
        )

    async def start_sender(self, order: Order) -> Actor:
        """The sender; it begins at once."""
        self.sender = await self._started(
            "sender", self.party.sender(self.directory / "sends", order), self.before_sender
        )
        return self.sender

    async def _started(self, name: str, command: list[str], proxy: FaultyProxy) -> Actor:
        environment = {
            "BUS_URL": through(self.url, proxy),
            "BUS_LOG_LEVEL": "warning",
            **self._environment,
        }
        return await Actor.started(name, command, environment, self.directory)

    async def replace_workers(self) -> None:
        """One that is new in the place of all."""
        for worker in self.workers:
            await worker.kill()
        self.workers.clear()
        await self.add_worker()

    async def stop_worker(self, worker: Actor) -> None:
        """By SIGTERM; its exit code is remembered."""
        self.workers.remove(worker)
        try:
            self.exits.append(await worker.stopped())
        finally:
            await worker.kill()

    # --- the broker ------------------------------------------------------------------------------------------------

    async def returns(self, starting: Awaitable[None]) -> None:
        """Wait until the broker has gone and started, and note when it first took connections."""
        task = asyncio.ensure_future(starting)
        while await asyncio.to_thread(accepts, self.node.port) and not task.done():
            await asyncio.sleep(LOOK)
        while not await asyncio.to_thread(accepts, self.node.port) and not task.done():
            await asyncio.sleep(LOOK)
        self.back.append(time.monotonic())
        await task

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """The management API, below this virtual host: `policies/{}/name`."""
        return await self.management.call(method, path.format(quote(self.vhost, safe="")), body)

    async def queues(self) -> list[str]:
        """The names of all queues."""
        return [queue["name"] for queue in await self.api("GET", "queues/{}?disable_stats=true")]

    async def dead(self) -> set[int]:
        """The numbers of all dead letters, which stay where they are."""
        return {letter.number for letter in await self.dead_letters()}

    async def dead_letters(self) -> list[Letter]:
        """What waits in all dead-letter queues; it stays there."""
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
        """How many messages wait in each queue that should be empty in the end."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            names = [
                name
                for name in await self.queues()
                if ".dead" not in name and ".replies." not in name
            ]
            return {
                name: (await channel.queue_declare(name, passive=True)).message_count or 0
                for name in names
            }
        finally:
            await connection.close()


def _number(body: bytes) -> int:
    """The ledger's number; `NOBODY` for what is no message of a campaign."""
    try:
        return int(json.loads(body)["number"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return NOBODY


def through(url: str, proxy: FaultyProxy) -> str:
    """The same broker, by way of the proxy."""
    parts = urlsplit(url)
    return urlunsplit(
        parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}")
    )
