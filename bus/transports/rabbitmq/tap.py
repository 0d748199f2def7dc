"""A tap: a temporary queue that receives copies of messages from the exchanges of the bus.

The queue is exclusive, so the broker deletes it with the connection. It is bounded in number, bytes
and time, and it drops its oldest messages. So a slow reader neither delays a publisher nor fills
the broker. The broker dead-letters each dropped message to a second queue. Its only use is to count
them: a purge returns the number of the messages that it deletes.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiormq.abc
from aiormq.channel import Channel
from pamqp.common import FieldTable

from bus.errors import PermissionDenied, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.topology.model import Binding, QueueRole
from bus.messaging.topology.names import SOURCES
from bus.security.secret_files import PasswordFile
from bus.settings import Settings
from bus.transports import wire_format as wire
from bus.transports.rabbitmq.amqp.pamqp_codec import from_message
from bus.transports.rabbitmq.body_limit import drop_large_bodies
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.exceptions import closing_reason, map_errors
from bus.transports.rabbitmq.open_connection import RPC_TIMEOUT_SECONDS, close_quietly

__all__ = ["TAP_PREFIX", "Tap", "TappedMessage", "open_tap"]

TAP_PREFIX = "bus.watch."
"""Prefix of the names of the two queues. No service can be called `bus`."""
MAX_READY = 10_000
"""Maximum number of messages that wait in the queue."""
MAX_READY_BYTES = 64 * 1024 * 1024
"""Maximum bytes of the bodies that wait in the queue."""
MAX_COUNTED = 100_000
"""Maximum number of dropped messages between two counts."""
MAX_AGE_MS = 60_000
"""Milliseconds that a message waits at most."""
PREFETCH = 200
HEARTBEAT_SECONDS = 10
"""Heartbeat of the connection. The queue of a stopped process ends after three heartbeats."""
ROLES: dict[str, QueueRole] = {exchange: role for role, exchange in SOURCES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TappedMessage:
    """A copy of a message. Its sender is not verified."""

    envelope: Envelope
    exchange: str
    size: int
    """Bytes of the body. The body of a large message is not kept."""


@asynccontextmanager
async def open_tap(
    settings: Settings, on_message: Callable[[TappedMessage], None], *, max_body_bytes: int
) -> AsyncIterator["Tap"]:
    """Connect, and create a tap without a binding. The broker deletes it at the end of the block.

    Args:
        settings: The broker's address and credentials.
        on_message: Function that receives each message. It must not block or raise.
        max_body_bytes: Maximum bytes of a body that is kept. A larger body is dropped.

    Raises:
        PermissionDenied: The broker's user may not create the queues.
        Unavailable: The broker does not answer in time.
    """
    link = SupervisedConnection(
        settings.address,
        name="bus watch",
        heartbeat=HEARTBEAT_SECONDS,
        attempt_timeout=settings.connect_timeout,
        fastlane=False,
        password=PasswordFile.of(settings.password_file),
    )
    try:
        await link.start(timeout=settings.connect_timeout)
        with explain_refusal(), map_errors("creating the tap"):
            tap = Tap(link, await link.channel(confirms=False), on_message, max_body_bytes)
            await tap.start()
        yield tap
    finally:
        await link.close()


class Tap:
    """A running tap."""

    def __init__(
        self,
        link: SupervisedConnection,
        channel: Channel,
        on_message: Callable[[TappedMessage], None],
        max_body_bytes: int,
    ) -> None:
        self._link = link
        self._channel = channel
        self._on_message = on_message
        self._sizes: dict[int, int] = {}
        """Sizes of dropped bodies, by the delivery tag of a message that has not arrived yet."""
        self._queue = f"{TAP_PREFIX}{secrets.token_hex(6)}"
        self._dropped = f"{self._queue}.dropped"
        drop_large_bodies(channel, max_body_bytes, self._sizes.__setitem__)

    async def start(self) -> None:
        """Create the queues, and consume."""
        bounds: FieldTable = {"x-max-length-bytes": MAX_READY_BYTES, "x-overflow": "drop-head"}
        await self._channel.queue_declare(
            self._dropped,
            exclusive=True,
            arguments={**bounds, "x-max-length": MAX_COUNTED},
            timeout=RPC_TIMEOUT_SECONDS,
        )
        await self._channel.queue_declare(
            self._queue,
            exclusive=True,
            auto_delete=True,
            arguments={
                **bounds,
                "x-max-length": MAX_READY,
                "x-message-ttl": MAX_AGE_MS,
                "x-expires": MAX_AGE_MS,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self._dropped,
            },
            timeout=RPC_TIMEOUT_SECONDS,
        )
        await self._channel.basic_qos(prefetch_count=PREFETCH, timeout=RPC_TIMEOUT_SECONDS)
        await self._channel.basic_consume(
            self._queue, self._take, exclusive=True, timeout=RPC_TIMEOUT_SECONDS
        )

    @property
    def ended(self) -> "asyncio.Future[object]":
        """Future that is done when the broker has closed the channel or the connection."""
        return self._channel.closing

    def check(self) -> None:
        """Raise `Unavailable` if the tap has ended."""
        if self.ended.done():
            why = closing_reason(self.ended) or "the connection was lost"
            raise Unavailable(f"the tap has ended: {why}")

    async def bind(self, keys: Iterable[tuple[str, str]]) -> None:
        """Begin to receive the messages of these exchanges with these routing keys.

        Raises:
            PermissionDenied: The broker's user may not bind a queue to an exchange.
            FailedPrecondition: An exchange does not exist.
        """
        await self._change(keys, "binding the tap", bind=True)

    async def unbind(self, keys: Iterable[tuple[str, str]]) -> None:
        """Stop receiving the messages of these exchanges with these routing keys."""
        await self._change(keys, "unbinding the tap", bind=False)

    async def _change(self, keys: Iterable[tuple[str, str]], what: str, *, bind: bool) -> None:
        # The broker closes the channel of a refused binding, so it is not the consumer's channel.
        with explain_refusal(), map_errors(what):
            channel = await self._link.channel(confirms=False)
            change = channel.queue_bind if bind else channel.queue_unbind
            try:
                for exchange, key in keys:
                    binding = Binding(exchange=exchange, queue=self._queue, routing_key=key)
                    await change(
                        binding.queue,
                        binding.exchange,
                        routing_key=binding.routing_key,
                        timeout=RPC_TIMEOUT_SECONDS,
                    )
            finally:
                await close_quietly(channel)

    async def count_dropped(self) -> int:
        """Return the number of messages that the broker has dropped since the last call.

        The number is a lower bound if it reaches a limit of the counting queue.
        """
        with map_errors("counting dropped messages"):
            purged = await self._channel.queue_purge(self._dropped, timeout=RPC_TIMEOUT_SECONDS)
        return purged.message_count or 0

    async def _take(self, message: aiormq.abc.DeliveredMessage) -> None:
        tag = message.delivery_tag or 0
        exchange = message.exchange or ""
        size = self._sizes.pop(tag, len(message.body))
        envelope = wire.decode(
            from_message(message),
            role=wire.ROLES[ROLES.get(exchange, "events")],
            queue=None,
            received=int(time.time() * 1000),
        )
        self._on_message(TappedMessage(envelope=envelope, exchange=exchange, size=size))
        await self._channel.basic_ack(tag, wait=False)


@contextmanager
def explain_refusal() -> Iterator[None]:
    """Add the remedy to the error about a broker user that may not create or bind a tap."""
    try:
        yield
    except PermissionDenied as error:
        raise PermissionDenied(
            f"this user of the broker may not tap messages ({error}). Set BUS_URL to the "
            "administrator's user, which the generated definitions call bus.topology."
        ) from None
