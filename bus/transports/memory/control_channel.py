"""The control channel of the memory transport."""

from collections.abc import Awaitable, Callable

from bus.errors import Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import Address
from bus.transports.memory.consumer import MemoryConsumer

__all__ = ["MemoryControlChannel"]

Send = Callable[[Envelope, Address], Awaitable[object]]


class MemoryControlChannel:
    """A supervised consumer, and the function that sends on the connection of the transport."""

    def __init__(self, consumer: MemoryConsumer, send: Send, accepts: Callable[[], bool]) -> None:
        """Create the channel.

        Args:
            consumer: The started consumer.
            send: Sends one message.
            accepts: Returns True if the broker accepts publishes now.
        """
        self._consumer, self._send, self._accepts = consumer, send, accepts

    @property
    def ready(self) -> bool:
        """True if the consumer is registered at the broker."""
        return self._consumer.ready

    async def wait_ready(self) -> None:
        """Wait until the consumer is ready."""
        await self._consumer.wait_ready()

    async def send(self, envelope: Envelope, address: Address) -> None:
        """Send one message; see `ControlChannel.send`."""
        if not (self.ready and self._accepts()):
            raise Unavailable("message not sent: the model broker accepts no publishes now")
        await self._send(envelope, address)

    def limit_body(self, max_bytes: int) -> None:
        """Drop larger bodies; see `ControlChannel.limit_body`."""
        self._consumer.limit_body(max_bytes)

    async def close(self) -> None:
        """Stop the consumer."""
        await self._consumer.close()
