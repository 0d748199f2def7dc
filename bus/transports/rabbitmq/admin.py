"""The AMQP operations of the operator commands.

The operations declare, bind, inspect and delete objects, and move messages between queues.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from aiormq.channel import Channel

from bus.errors import Unavailable
from bus.messaging.topology.model import Binding, Topology
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports.rabbitmq.amqp.raw_properties import CopyOptions
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.credential_refresh import CredentialRefresher
from bus.transports.rabbitmq.declare import find_missing
from bus.transports.rabbitmq.delete import delete_idle, delete_unbound
from bus.transports.rabbitmq.exceptions import map_errors
from bus.transports.rabbitmq.fastlane.shovel_channel import ShovelChannel, fresh_tag
from bus.transports.rabbitmq.open_connection import RPC_TIMEOUT_SECONDS, close_quietly
from bus.transports.rabbitmq.queue_depth import QueueDepth, depth_by

__all__ = ["AdminSession", "Shovel", "open_admin_session"]

MAX_IN_FLIGHT = 200
"""Maximum messages in flight during a move.

If the process is killed, only the messages in flight can be duplicated.
"""
STALL_SECONDS = 30.0
"""Seconds without a confirm after which a move fails. A broker alarm delays confirms."""
EMPTY_FOR_SECONDS = 0.3
"""Seconds between two checks. If both checks find no message, the queue counts as empty."""

POLL_INTERVAL_SECONDS = 0.05
"""Seconds between two checks of the progress of a move."""


@asynccontextmanager
async def open_admin_session(settings: Settings) -> AsyncIterator["AdminSession"]:
    """Open a connection for operator commands. Close it at the end of the `async with` block.

    The session ignores the setting `topology`. It declares objects even if the setting is `verify`.

    Args:
        settings: The broker's addresses, credentials and time limits.

    Yields:
        A session on the open connection.

    Raises:
        Unauthenticated: Every host refuses the credentials. The function does not try again.
        ConfigurationError: Every host refuses the virtual host. The function does not try again.
        Unavailable: No host answers within the connect timeout for each host.
    """
    password = PasswordFile.of(settings.password_file)
    link = SupervisedConnection(
        settings.address,
        name="topology",
        heartbeat=settings.heartbeat,
        attempt_timeout=settings.connect_timeout,
        fastlane=True,  # a shovel copies raw bytes, which only the fast lane provides
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
    """The operations of the operator commands, on one connection."""

    def __init__(self, link: SupervisedConnection) -> None:
        self._link = link

    async def declare(self, topology: Topology) -> None:
        """Declare a topology.

        Args:
            topology: The exchanges, queues and bindings to create.

        Raises:
            TopologyMismatch: An object already exists, but its arguments are different.
            PermissionDenied: The user may not declare an object.
        """
        await self._link.declare(topology)

    async def find_missing(self, topology: Topology) -> list[str]:
        """Return the exchanges and shared queues of a topology that do not exist.

        Only passive declarations are used, so nothing is created.
        """
        channels: list[Channel] = []

        async def open_channel() -> Channel:
            channels.append(await self._link.channel(confirms=False))
            return channels[-1]

        with map_errors("verifying"):
            try:
                return await find_missing(open_channel, topology, timeout=RPC_TIMEOUT_SECONDS)
            finally:
                for channel in channels:
                    await close_quietly(channel)

    async def depth(self, queue: str) -> QueueDepth | None:
        """Return the number of messages and of consumers, or None if the queue does not exist."""
        async with self._channel(f"inspecting {queue}") as channel:
            depth = await depth_by(channel, queue)
        return None if depth.missing else depth

    async def bind(self, bindings: Iterable[Binding]) -> None:
        """Create bindings. A binding that exists is not changed."""
        async with self._channel("binding") as channel:
            for binding in bindings:
                await channel.queue_bind(
                    binding.queue,
                    binding.exchange,
                    routing_key=binding.routing_key,
                    timeout=RPC_TIMEOUT_SECONDS,
                )

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Remove bindings. A binding that does not exist is ignored."""
        async with self._channel("unbinding") as channel:
            for binding in bindings:
                await channel.queue_unbind(
                    binding.queue,
                    binding.exchange,
                    routing_key=binding.routing_key,
                    timeout=RPC_TIMEOUT_SECONDS,
                )

    async def delete(self, queue: str, *, if_empty: bool) -> None:
        """Delete a queue.

        Args:
            queue: The queue's name.
            if_empty: Delete the queue only if it has no messages. Set it only for a classic
                queue. If the queue is a quorum queue, the broker closes the connection.
        """
        async with self._channel(f"deleting {queue}") as channel:
            await channel.queue_delete(queue, if_empty=if_empty, timeout=RPC_TIMEOUT_SECONDS)

    async def delete_idle(self, queue: str, *, is_quorum: bool, if_empty: bool = True) -> bool:
        """Delete a queue only if it has no consumers and no ready messages; see `delete_idle`."""
        async with self._channel(f"deleting {queue}") as channel:
            return await delete_idle(channel, queue, is_quorum=is_quorum, if_empty=if_empty)

    async def delete_exchange(self, exchange: str) -> bool:
        """Delete an exchange only if nothing is bound to it; see `delete_unbound`."""
        async with self._channel(f"deleting {exchange}") as channel:
            return await delete_unbound(channel, exchange)

    @asynccontextmanager
    async def shovel(
        self, source: str, target: str, carriage: CopyOptions, on_moved: Callable[[int, int], None]
    ) -> AsyncIterator["Shovel"]:
        """Move messages from one queue to another while the `async with` block runs.

        The shovel is an exclusive consumer. If the source is a classic queue, no other client can
        consume from the source during the move.

        Args:
            source: The queue that the messages leave.
            target: The queue that receives the messages.
            carriage: Options of the copies, such as the headers that the copies keep.
            on_moved: Function that receives two numbers. The first is the number of moved messages.
                The second is the number of moved messages that can be duplicates.

        Yields:
            The running shovel.

        Raises:
            Unavailable: The connection is closed.
        """
        async with self._channel(f"moving {source}", confirms=True) as channel:
            if self._link.lane is None:
                raise Unavailable(
                    "the connection to the broker was lost"
                    f" ({self._link.last_error or 'closed'}). Run the command again."
                )
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
    """A running move of messages from one queue to another."""

    def __init__(self, administration: AdminSession, source: str, mover: ShovelChannel) -> None:
        self._administration = administration
        self._source = source
        self._mover = mover

    async def wait_moved(self, moved: int) -> None:
        """Wait until the number of moved messages reaches `moved`, or the source is empty."""
        await self._wait_empty(lambda: self._mover.moved >= moved)

    async def wait_empty(self) -> None:
        """Wait until the source is empty.

        After `EMPTY_FOR_SECONDS`, check the source again. If the source has messages, wait until it
        is empty.
        """
        await self._wait_empty(lambda: False)
        await asyncio.sleep(EMPTY_FOR_SECONDS)
        await self._wait_empty(lambda: False)

    async def _wait_empty(self, enough: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        moved, since = self._mover.moved, loop.time()
        while not enough():
            self._mover.check()
            if self._mover.moved > moved:
                moved, since = self._mover.moved, loop.time()
            if not self._mover.in_flight:
                depth = await self._administration.depth(self._source)
                if depth is None or (depth.ready == 0 and not self._mover.in_flight):
                    self._mover.check()
                    return
            elif loop.time() - since > STALL_SECONDS:
                raise Unavailable(
                    f"the broker has not confirmed a message for {STALL_SECONDS:g} s. No message is"
                    " lost. Check the broker for a memory or disk alarm, then run the command"
                    " again."
                )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
