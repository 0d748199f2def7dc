"""The control channel: a consumer that also sends on its channel, and that the broker may refuse.

A service without a permission for `bus.control` must work. So this consumer does not try again at
once, as the other consumers do, and logs nothing about the refusal.
"""

import asyncio
import logging
from collections.abc import Callable

from typing_extensions import override

from bus.errors import (
    BusError,
    ConfigurationError,
    FailedPrecondition,
    PermissionDenied,
    TopologyMismatch,
    Unavailable,
)
from bus.messaging.envelope import Envelope
from bus.messaging.ports.control_channel import REFUSED_RETRY_SECONDS
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.aiormq_channels import AiormqConsumerChannel
from bus.transports.rabbitmq.amqp.access_refused import REFUSED
from bus.transports.rabbitmq.consumer import RabbitMQConsumer
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, to_bus_error
from bus.transports.rabbitmq.fastlane.consumer_channel import ConsumerChannel

__all__ = ["ControlConsumer", "is_lasting_refusal"]

log = logging.getLogger("bus.rabbitmq")

LASTING: tuple[type[BusError], ...] = (
    PermissionDenied,
    ConfigurationError,
    FailedPrecondition,
    TopologyMismatch,
)
"""Errors that last until an administrator changes the broker."""
SEND_REFUSED_SECONDS = 10.0
"""Seconds until the channel is opened again after the broker refused a message on it."""
SEND_SECONDS = 5.0
"""Seconds in which a message must be written, or confirmed if the fast lane is off."""
LOCKED_QUEUE = "RESOURCE_LOCKED"
"""Error about an exclusive queue that an earlier connection still owns."""


def is_lasting_refusal(error: BusError) -> bool:
    """Return True if another attempt on this connection would fail as well."""
    return isinstance(error, LASTING) and LOCKED_QUEUE not in str(error)


class ControlConsumer(RabbitMQConsumer):
    """The consumer of a control channel. It implements `ControlChannel`."""

    on_refused: Callable[[BusError], None]
    check_size: Callable[[Envelope], None]
    _refusal: BusError | None = None
    _refused_send = False
    """True if the broker refused a message, and not the queue."""

    def prepare(
        self, on_refused: Callable[[BusError], None], check_size: Callable[[Envelope], None]
    ) -> None:
        """Set the functions of the channel, before `start`.

        Args:
            on_refused: Called with each lasting refusal of the broker.
            check_size: Raises `InvalidArgument` if a message is too large.
        """
        self.on_refused, self.check_size = on_refused, check_size

    @override
    async def _step(self) -> None:
        self._refusal, self._refused_send = None, False
        try:
            await super()._step()
        except EXPECTED_ERRORS as raised:
            error = to_bus_error(raised, "opening the control channel")
            if not is_lasting_refusal(error):
                raise
            self._refusal = error
        if self._refusal is not None:
            self.last_error = str(self._refusal)
            self.on_refused(self._refusal)
            is_send = self._refused_send
            await self._link.wait_lost(SEND_REFUSED_SECONDS if is_send else REFUSED_RETRY_SECONDS)

    @override
    def _report_end(self, why: str) -> None:
        """Keep a refusal for `_step`. Another end of the channel is usual, and not a warning."""
        self.last_error = why
        if REFUSED in why:
            self._refused_send = True
            self._refusal = PermissionDenied(f"sending on the control channel: {why}")

    @override
    def _report(self, error: BaseException) -> None:
        self.last_error = str(to_bus_error(error, f"consuming {self.name}"))
        log.debug(
            "%s: cannot consume (%s); trying again",
            self.name,
            self.last_error,
            extra={"queue": self.name, "why": self.last_error},
        )

    async def send(self, envelope: Envelope, address: Address) -> None:
        """Send one message on the channel of the consumer; see `ControlChannel.send`."""
        self.check_size(envelope)
        current = self._current
        if current is None or not self.ready:
            raise Unavailable("message not sent: the control channel is not open")
        if isinstance(current, ConsumerChannel):
            if not current.lane.writable:
                raise Unavailable("message not sent: the broker accepts no publishes now")
            current.publish(envelope, address)
        elif isinstance(current, AiormqConsumerChannel):
            ends = asyncio.get_running_loop().time() + SEND_SECONDS
            try:
                await current.publish(envelope, address, ends)
            except PermissionDenied as error:
                self._refused_send, self._refusal = True, error
                raise
