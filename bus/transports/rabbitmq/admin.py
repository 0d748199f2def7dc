"""What an operator's tools do at the broker over AMQP: declare, bind, look, delete, and move messages between queues."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from aiormq.channel import Channel

from bus.errors import Unavailable
from bus.messaging.topology.model import Binding, Topology
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports.rabbitmq.amqp.raw_properties import CopyOptions
from bus.transports.rabbitmq.connection import (
    RPC_TIMEOUT_SECONDS,
    SupervisedConnection,
    close_quietly,
)
from bus.transports.rabbitmq.credential_refresh import CredentialRefresher
from bus.transports.rabbitmq.declare import find_missing
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.fastlane.shovel_channel import ShovelChannel, fresh_tag
from bus.transports.rabbitmq.queue_depth import QueueDepth, depth_by

__all__ = ["AdminSession", "Shovel", "open_admin_session"]

MAX_IN_FLIGHT = 200
"""Messages that are on their way at a time; so many may be there twice after a kill."""
STALL_SECONDS = 30.0
"""Seconds without a confirm after which the broker takes no publishes: an alarm, most of the time."""
EMPTY_FOR_SECONDS = 0.3
"""Seconds between two looks at a queue that has to be empty in both."""

POLL_INTERVAL_SECONDS = 0.05
"""Seconds between two looks whether a queue is empty yet."""


@asynccontextmanager
async def open_admin_session(settings: Settings) -> AsyncIterator["AdminSession"]:
    """A connection for an operator's work; raises as `Transport.start`. It declares whatever the setting `topology` says."""
    password = PasswordFile.of(settings.password_file)
    link = SupervisedConnection(
        settings.address,
        name="topology",
        heartbeat=settings.heartbeat,
        attempt_timeout=settings.connect_timeout,
        fastlane=True,  # messages are moved on it, as the bytes that they are
        password=password,
    )
    renewal = CredentialRefresher.by(settings, password, (link,), name="topology")
    try:
        await link.start(timeout=settings.connect_timeout)
        if renewal is not None:
            renewal.start()
        yield AdminSession(link)
    finally:
        if renewal is not None:
            await renewal.close()
        await link.close()


class AdminSession:
    """One connection's worth of work."""

    def __init__(self, link: SupervisedConnection) -> None:
        self._link = link

    async def declare(self, topology: Topology) -> None:
        """Make it exist; `TopologyMismatch` or `PermissionDenied` where the broker refuses."""
        await self._link.declare(topology)

    async def find_missing(self, topology: Topology) -> list[str]:
        """Of its exchanges and shared queues those that are not there, by passive declarations: nothing is made."""
        opened: list[Channel] = []

        async def fresh() -> Channel:
            opened.append(await self._link.channel(confirms=False))
            return opened[-1]

        with map_errors("verifying"):
            try:
                return await find_missing(fresh, topology, timeout=RPC_TIMEOUT_SECONDS)
            finally:
                for channel in opened:
                    await close_quietly(channel)

    async def depth(self, queue: str) -> QueueDepth | None:
        """What waits in a queue, and who consumes it; None where there is none."""
        async with self._channel(f"looking at {queue}") as channel:
            depth = await depth_by(channel, queue)
        return None if depth.missing else depth

    async def bind(self, bindings: Iterable[Binding]) -> None:
        """Bind; what is bound already stays so."""
        async with self._channel("binding") as channel:
            for each in bindings:
                await channel.queue_bind(
                    each.queue,
                    each.exchange,
                    routing_key=each.routing_key,
                    timeout=RPC_TIMEOUT_SECONDS,
                )

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Unbind; what is not bound stays so."""
        async with self._channel("unbinding") as channel:
            for each in bindings:
                await channel.queue_unbind(
                    each.queue,
                    each.exchange,
                    routing_key=each.routing_key,
                    timeout=RPC_TIMEOUT_SECONDS,
                )

    async def delete(self, queue: str, *, if_empty: bool) -> None:
        """Delete a queue. `if_empty` is for classic ones: asked of a quorum queue it ends the connection."""
        async with self._channel(f"deleting {queue}") as channel:
            await channel.queue_delete(queue, if_empty=if_empty, timeout=RPC_TIMEOUT_SECONDS)

    @asynccontextmanager
    async def shovel(
        self, source: str, target: str, carriage: CopyOptions, on_moved: Callable[[int, int], None]
    ) -> AsyncIterator["Shovel"]:
        """Messages go from `source` to `target` inside the block; of a classic queue nobody else can consume meanwhile.

        `on_moved` hears how many were moved, and how many of these may be there twice.
        """
        async with self._channel(f"moving {source}", confirms=True) as channel:
            if self._link.lane is None:
                raise Unavailable(f"not connected any more ({self._link.last_error or 'closed'})")
            mover = ShovelChannel(
                self._link.lane,
                channel.number,
                target=target,
                carriage=carriage,
                on_moved=lambda: on_moved(mover.moved, mover.again),
            )
            try:
                await channel.basic_qos(prefetch_count=MAX_IN_FLIGHT, timeout=RPC_TIMEOUT_SECONDS)
                await channel.basic_consume(
                    source,
                    mover.take,
                    exclusive=True,
                    consumer_tag=fresh_tag(),
                    timeout=RPC_TIMEOUT_SECONDS,
                )
                yield Shovel(self, source, mover)
            finally:
                mover.release()

    @asynccontextmanager
    async def _channel(self, what: str, *, confirms: bool = False) -> AsyncIterator[Channel]:
        with map_errors(what):
            channel = await self._link.channel(confirms=confirms)
            try:
                yield channel
            finally:
                await close_quietly(channel)


class Shovel:
    """A queue that is being emptied into another."""

    def __init__(self, administration: AdminSession, source: str, mover: ShovelChannel) -> None:
        self._administration = administration
        self._source = source
        self._mover = mover

    async def wait_moved(self, moved: int) -> None:
        """Returns once so many were moved, or there are none."""
        await self._wait_empty(lambda: self._mover.moved >= moved)

    async def wait_empty(self) -> None:
        """Returns once there are none, in two looks one after the other."""
        await self._wait_empty(lambda: False)
        await asyncio.sleep(EMPTY_FOR_SECONDS)
        await self._wait_empty(lambda: False)

    async def _wait_empty(self, enough: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        known, since = self._mover.moved, loop.time()
        while not enough():
            self._mover.check()
            if self._mover.moved > known:
                known, since = self._mover.moved, loop.time()
            if not self._mover.in_flight:
                depth = await self._administration.depth(self._source)
                if depth is None or (depth.ready == 0 and not self._mover.in_flight):
                    self._mover.check()
                    return
            elif loop.time() - since > STALL_SECONDS:
                raise Unavailable(
                    f"no confirm for {STALL_SECONDS:g} s: the broker takes no publishes now, as in an alarm; nothing is lost"
                )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
