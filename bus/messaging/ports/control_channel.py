"""The port of the control channel: a bounded queue of this process, without confirms.

The broker closes an AMQP channel when it refuses an operation on it. So the control channel does
not share an AMQP channel with requests, events and jobs.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec

__all__ = ["REFUSED_RETRY_SECONDS", "ControlChannel", "ControlTransport"]

REFUSED_RETRY_SECONDS = 300.0
"""Seconds after which a refused control channel is opened again on the same connection."""


class ControlChannel(Protocol):
    """A supervised consumer that also sends, both on an AMQP channel of its own."""

    @property
    def ready(self) -> bool:
        """True if the consumer is registered at the broker."""
        ...

    async def wait_ready(self) -> None:
        """Wait without a time limit until the consumer is ready."""
        ...

    async def send(self, envelope: Envelope, address: Address) -> None:
        """Send one message without a confirm. The message can be lost.

        Raises:
            Unavailable: The channel is not ready, or the broker accepts no publishes now.
            InvalidArgument: The message is too large, or is invalid in AMQP.
        """
        ...

    def limit_body(self, max_bytes: int) -> None:
        """Drop larger bodies that arrive from now on. The limit of the consumer does not count."""
        ...

    async def close(self) -> None:
        """Stop the consumer and release its channel, within a few seconds."""
        ...


@runtime_checkable
class ControlTransport(Protocol):
    """A transport that can open a control channel."""

    async def open_control(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_refused: Callable[[BusError], None],
    ) -> ControlChannel:
        """Open a supervised control channel. The method does not wait for the broker.

        Args:
            spec: Exclusive queue of the channel, with its bindings.
            on_delivery: Function that is called with each delivery. It must not block or raise.
            on_refused: Function that is called with the error if the broker refuses the channel.
                After that, the transport tries again when it has connected again, or after
                `REFUSED_RETRY_SECONDS`. It logs nothing about the refusal.
        """
        ...
