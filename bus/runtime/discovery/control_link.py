"""The link of one process to the control channel: it is open, or discovery is off."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from bus.errors import BusError, ConfigurationError, TopologyMismatch, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.labels import one_line
from bus.messaging.ports.control_channel import ControlChannel, ControlTransport
from bus.messaging.ports.transport import Delivery, Transport
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.control import COMMANDS, answer_key, control_address
from bus.messaging.topology.model import Topology
from bus.security.control_security import ControlGuard

__all__ = ["ControlLink", "Member"]

log = logging.getLogger("bus.discovery")

LOG_INTERVAL_SECONDS = 300.0
"""Minimum seconds between two lines about a refusal."""
IMPORT_USERS = "Let an administrator import the output of `bus topology definitions` again."
OTHER_USER = "Pass --as SERVICE with the service of the user in BUS_URL, or use another user."


HAVE_REMEDY = (ConfigurationError, TopologyMismatch)
"""Refusals that name what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process on the control channel, and the objects that it uses there."""

    source: str
    """Name of the service, or of the operator."""
    receiver: str
    """Name in the address of the answers: the service, or `COMMANDS`."""
    instance: str
    """Name of the process, unique among the processes of all services."""
    transport: Transport
    guard: ControlGuard
    max_body_bytes: int
    leeway: float = 30
    """Seconds by which the clocks of two machines may differ."""
    clock: Callable[[], float] = time.time

    @property
    def answer_key(self) -> str:
        """Routing key of the answers to this process."""
        return answer_key(self.receiver, self.instance)


class ControlLink:
    """A queue on the control channel, with the reason if the broker refuses it."""

    def __init__(
        self,
        member: Member,
        topology: Topology,
        *,
        purpose: str = "discovery",
        refusal_level: int = logging.WARNING,
    ) -> None:
        """Create a link that is not open.

        Args:
            member: The process.
            topology: The exclusive queue and its bindings.
            purpose: The function that is off without the queue, for the log line.
            refusal_level: Level of the log line about a refusal.
        """
        self._member, self._topology, self._purpose = member, topology, purpose
        self._refusal_level = refusal_level
        self._channel: ControlChannel | None = None
        self._changed = asyncio.Event()
        self.refusal: BusError | None = None
        """Reason why the link is off, or None."""
        self.on_refused: list[Callable[[BusError], None]] = []
        """Functions to call with each refusal of the broker."""
        self._is_logged = False
        """True if the last line in the log reports that the link is off."""
        self._logged_at = float("-inf")

    @property
    def ready(self) -> bool:
        """True if messages can be sent and received now."""
        return self._channel is not None and self._channel.ready

    async def open(self, on_message: Callable[[Envelope], None]) -> None:
        """Open the channel, and do not wait for the broker."""
        transport = self._member.transport
        if not isinstance(transport, ControlTransport):
            self.refusal = Unavailable(f"{type(transport).__name__} has no control channel")
            log.info(
                "%s: %s is off, because %s has no control channel",
                self._member.source,
                self._purpose,
                type(transport).__name__,
                extra={"service": self._member.source},
            )
            return

        def on_delivery(delivery: Delivery) -> None:
            if self._is_logged:
                self._log_return()
            on_message(delivery.envelope)

        spec = ConsumerSpec(
            queue=self._topology.queues[0],
            topology=self._topology,
            prefetch=0,
            acks=False,
            max_body_bytes=self._member.max_body_bytes,
        )
        self._channel = await transport.open_control(spec, on_delivery, self._on_refused)

    def _on_refused(self, error: BusError) -> None:
        self.refusal = error
        self._changed.set()
        for notify in self.on_refused:
            notify(error)
        now = asyncio.get_running_loop().time()
        if now - self._logged_at < LOG_INTERVAL_SECONDS:
            return
        self._is_logged, self._logged_at = True, now
        log.log(
            self._refusal_level,
            "%s: %s is off, because the broker refused the control channel: %s",
            self._member.source,
            self._purpose,
            one_line(self._explain(error)),
            extra={"service": self._member.source, "why": str(error)},
        )

    def _log_return(self) -> None:
        self._is_logged = False
        log.info(
            "%s: %s is on again",
            self._member.source,
            self._purpose,
            extra={"service": self._member.source},
        )

    async def wait_ready(self, seconds: float) -> None:
        """Wait until the link is ready, but at most `seconds`.

        Raises:
            Unavailable: The broker refuses the link, or is not connected.
        """
        channel = self._channel
        if channel is not None and channel.ready:
            self.refusal = None
            self._changed.clear()
            return
        if channel is not None and self.refusal is None:
            waits = [
                asyncio.ensure_future(channel.wait_ready()),
                asyncio.ensure_future(self._changed.wait()),
            ]
            try:
                await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if channel.ready:
                return
        raise self._unavailable()

    def _unavailable(self) -> Unavailable:
        if self.refusal is not None:
            return Unavailable(f"{self._purpose} is off: {self._explain(self.refusal)}")
        return Unavailable(
            f"{self._purpose} is not connected to the broker. Check the connection, and try again."
        )

    def _explain(self, refusal: BusError) -> str:
        """Return the reason of a refusal, and its remedy."""
        if isinstance(refusal, HAVE_REMEDY):
            return str(refusal)
        reason = str(refusal).rstrip(".")
        if self._channel is None and isinstance(refusal, Unavailable):
            return f"{reason}. Use another transport."
        is_command = self._member.receiver == COMMANDS
        return f"{reason}. {OTHER_USER if is_command else IMPORT_USERS}"

    async def send(self, envelope: Envelope, key: str) -> None:
        """Send one message without a confirm.

        Raises:
            Unavailable: The link is not ready.
        """
        if self._channel is None:
            raise self._unavailable()
        await self._channel.send(envelope, control_address(key))

    async def close(self) -> None:
        """Close the channel. The broker deletes the queue with the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
