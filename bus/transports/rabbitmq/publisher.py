"""A publisher that uses one channel, and opens another channel each time the channel ends."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from aiormq.channel import Channel

from bus.errors import DeadlineExceeded, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.supervision import run_forever
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.transports.rabbitmq.amqp.access_refused import REFUSED
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, to_bus_error
from bus.transports.rabbitmq.fastlane.confirm_watchdog import ConfirmStats, ConfirmWatchdog
from bus.transports.rabbitmq.open_connection import (
    CLOSE_TIMEOUT_SECONDS,
    OpenConnection,
    close_quietly,
)

__all__ = ["Publisher", "PublisherChannelPort"]

log = logging.getLogger("bus.rabbitmq")

POLL_INTERVAL_SECONDS = 0.5
"""Seconds between two checks of the confirms on the channel."""


class PublisherChannelPort(Protocol):
    """The interface of a publisher's channel, for channels with and without confirms."""

    ended: "asyncio.Future[str]"
    confirm_stats: ConfirmStats

    @property
    def alive(self) -> bool:
        """True if the channel can publish."""
        ...

    @property
    def awaiting_confirms(self) -> bool:
        """True if a publish waits for its confirm and the socket is not full."""
        ...

    @property
    def window_exhausted(self) -> bool:
        """True if timed-out publishes occupy too many slots of the window."""
        ...

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Publish a message and return its outcome.

        Args:
            envelope: The message.
            address: The exchange and the routing key.
            ends: The deadline on the event loop's clock.

        Raises:
            BusError: One of the errors of `Transport.send`.
        """
        ...

    def release(self) -> None:
        """Stop using the channel. Call this method before you close the channel."""
        ...


class Publisher:
    """A publisher on one channel of a connection. Many publishes can be in flight at a time."""

    def __init__(
        self,
        link: OpenConnection,
        *,
        confirms: bool,
        channel_factory: Callable[[Channel], PublisherChannelPort],
    ) -> None:
        """Create a publisher that is not started.

        Args:
            link: The connection.
            confirms: If True, open the channel in confirm mode.
            channel_factory: Creates the object that publishes on an open channel.
        """
        self._link = link
        self._confirms = confirms
        self._channel_factory = channel_factory
        self._current: PublisherChannelPort | None = None
        self._channel: Channel | None = None
        self._ping: asyncio.Task[None] | None = None
        self.answered_at = float("-inf")
        """Time of the last answer to a ping, on the event loop's clock."""
        self._open = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._now: Callable[[], float] | None = None
        self._watchdog = ConfirmWatchdog()

    def start(self) -> None:
        """Open a channel, and open another channel each time the channel ends."""
        self._now = asyncio.get_running_loop().time
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"publisher {self._link.name}",
        )

    async def _step(self) -> None:
        await self._link.up.wait()
        # Declare the exchanges first, because a publish to a missing exchange closes the channel.
        await self._link.declare(BASE_EXCHANGES)
        channel = await self._link.channel(confirms=self._confirms)
        current: PublisherChannelPort | None = None
        try:
            current = self._current = self._channel_factory(channel)
            self._channel = channel
            self._open.set()
            await self._watch(channel, current)
            if current.ended.done() and REFUSED in current.ended.result():
                log.error(
                    "%s: the broker refused a publish, and closed the channel (%s)",
                    self._link.name,
                    current.ended.result(),
                    extra={"link": self._link.name, "why": current.ended.result()},
                )
        finally:
            self._open.clear()
            self._current = self._channel = None
            if current is not None:
                current.release()
            await close_quietly(channel)

    async def _watch(self, channel: Channel, current: PublisherChannelPort) -> None:
        """Wait until the channel ends or must be replaced.

        The channel must be replaced if the broker nacks all messages. It must also be replaced if
        the broker does not confirm messages in time.
        """
        loop, stats = asyncio.get_running_loop(), current.confirm_stats
        interval = POLL_INTERVAL_SECONDS if self._confirms else None
        # `closing` is read only once, because each read creates a future that aiormq keeps until
        # the channel ends.
        closing = channel.closing
        while True:
            done, _ = await asyncio.wait(
                (closing, current.ended), timeout=interval, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
            waiting = current.awaiting_confirms and await self._link.accepts_publishes()
            stats.observe(loop.time(), waiting=waiting, exhausted=current.window_exhausted)
            if symptom := self._watchdog.due_symptom(stats, loop.time()):
                log.warning(
                    "%s: %s; opening another channel",
                    self._link.name,
                    symptom,
                    extra={"link": self._link.name, "why": symptom},
                )
                return

    def _report(self, error: BaseException) -> None:
        reason = str(to_bus_error(error, "opening a channel to publish"))
        log.warning(
            "%s: cannot publish (%s); trying again",
            self._link.name,
            reason,
            extra={"link": self._link.name, "why": reason},
        )

    def ping(self) -> None:
        """Let the broker answer on the channel, unless the last ping has no answer yet."""
        if self._channel is not None and (self._ping is None or self._ping.done()):
            self._ping = asyncio.create_task(
                self._await_answer(self._channel), name=f"ping {self._link.name}"
            )

    async def _await_answer(self, channel: Channel) -> None:
        """Send a frame that the broker answers. The end of the channel ends the wait.

        The prefetch of a channel without a consumer has no effect. A time limit would close the
        channel, and with it the publishes in flight.
        """
        with suppress(asyncio.CancelledError, *EXPECTED_ERRORS):
            await channel.basic_qos(prefetch_count=0)
            self.answered_at = asyncio.get_running_loop().time()

    async def publish(
        self, envelope: Envelope, address: Address, *, timeout: float
    ) -> PublishOutcome:
        """Publish a message. If the channel ends before the message was sent, use the next channel.

        Args:
            envelope: The message.
            address: The exchange and the routing key.
            timeout: Seconds until the outcome must be known.

        Returns:
            The outcome that the broker reported.

        Raises:
            BusError: One of the errors of `Transport.send`.
        """
        if self._now is None:
            raise Unavailable("message not sent: the transport is not started")
        if timeout <= 0:
            raise DeadlineExceeded(
                f"{envelope.type}: the deadline passed before the message was sent. "
                "Raise the timeout."
            )
        ends = self._now() + timeout
        while True:
            current = self._current
            if current is None or not current.alive:
                current = await self._wait_channel(ends)
            try:
                return await current.publish(envelope, address, ends)
            except Unavailable as error:
                if error.maybe_executed or current.alive or self._now() >= ends:
                    raise
                # The message was certainly not sent, so it can be sent on the next channel.

    async def _wait_channel(self, ends: float) -> PublisherChannelPort:
        """Wait until a channel is open, and return it.

        Raises:
            Unavailable: No channel is open before `ends`. The message was certainly not sent.
        """
        try:
            async with asyncio.timeout_at(ends):
                while True:
                    await self._open.wait()
                    if self._current is not None and self._current.alive:
                        return self._current
                    self._open.clear()  # the channel has ended; the next channel sets the event
        except TimeoutError:
            raise Unavailable(
                f"message not sent: {self._link.last_error or 'no channel to the broker is open'}"
            ) from None

    async def close(self) -> None:
        """Stop the publisher and close its channel."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)
