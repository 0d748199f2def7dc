"""A channel to publish on, opened again for ever."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from aiormq.channel import Channel

from bus.errors import DeadlineExceeded, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.supervision import run_forever
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.transports.rabbitmq.amqp.access_refused import REFUSED
from bus.transports.rabbitmq.connection import CLOSE_TIMEOUT_SECONDS, OpenConnection, close_quietly
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, to_bus_error
from bus.transports.rabbitmq.fastlane.confirm_watchdog import (
    ConfirmStats,
    ConfirmTimeoutWatchdog,
    NackWatchdog,
)

__all__ = ["Publisher", "PublisherChannelPort"]

log = logging.getLogger("bus.rabbitmq")

POLL_INTERVAL_SECONDS = 0.5
"""Seconds between two looks whether the broker takes anything."""
MAX_EXHAUSTED_POLLS = 4
"""Looks that find a channel clogged: after an alarm the confirms of what lay before it come first."""


class PublisherChannelPort(Protocol):
    """One channel's life: on the fast lane or not, with confirms or without."""

    ended: "asyncio.Future[str]"
    confirm_stats: ConfirmStats

    @property
    def alive(self) -> bool:
        """Whether it can publish."""
        ...

    @property
    def awaiting_confirms(self) -> bool:
        """Whether the broker's word is waited for, and no full socket holds it up."""
        ...

    @property
    def window_exhausted(self) -> bool:
        """Whether publishes that nobody waits for any more leave too little room for others."""
        ...

    async def publish(self, envelope: Envelope, address: Address, ends: float) -> PublishOutcome:
        """Publish by `ends` (loop time); `Transport.send` says what is raised."""
        ...

    def release(self) -> None:
        """It is about to be closed."""
        ...


class Publisher:
    """Publishes on one channel of a link; many publishes may wait for their confirm at a time."""

    def __init__(
        self,
        link: OpenConnection,
        *,
        confirms: bool,
        channel_factory: Callable[[Channel], PublisherChannelPort],
    ) -> None:
        """`opened` makes of a channel what publishes on it."""
        self._link = link
        self._confirms = confirms
        self._opened = channel_factory
        self._current: PublisherChannelPort | None = None
        self._open = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._now: Callable[[], float] | None = None
        self._giving_up, self._silence = NackWatchdog(), ConfirmTimeoutWatchdog()

    def start(self) -> None:
        """Open the channel, and again whenever it ends."""
        self._now = asyncio.get_running_loop().time
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"publisher {self._link.name}",
        )

    async def _step(self) -> None:
        await self._link.up.wait()
        await self._link.declare(
            BASE_EXCHANGES
        )  # a publish to an exchange that is not there would cost the channel
        channel = await self._link.channel(confirms=self._confirms)
        current: PublisherChannelPort | None = None
        try:
            current = self._current = self._opened(channel)
            self._open.set()
            await self._watch(channel, current)
            if current.ended.done() and REFUSED in current.ended.result():
                log.error(
                    "the broker refused a publish, and closed the channel",
                    extra={"link": self._link.name, "why": current.ended.result()},
                )
        finally:
            self._open.clear()
            self._current = None
            if current is not None:
                current.release()
            await close_quietly(channel)

    async def _watch(self, channel: Channel, current: PublisherChannelPort) -> None:
        """Until the channel has ended, or is to be given up: all that is published on it is nacked, or too much of it never confirmed."""
        loop, look = asyncio.get_running_loop(), POLL_INTERVAL_SECONDS if self._confirms else None
        clogged = 0
        closing = (
            channel.closing
        )  # once: aiormq makes a future each time, and keeps it for as long as the channel lives
        while True:
            done, _ = await asyncio.wait(
                (closing, current.ended), timeout=look, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
            clogged = clogged + 1 if current.window_exhausted else 0
            waiting = current.awaiting_confirms and await self._link.accepts_publishes()
            if clogged == MAX_EXHAUSTED_POLLS or self._silence.is_due(
                current.confirm_stats, loop.time(), waiting=waiting
            ):
                log.warning(
                    "the broker does not confirm what is published; trying another channel",
                    extra={"link": self._link.name},
                )
                return
            if self._giving_up.is_due(current.confirm_stats, loop.time()):
                log.warning(
                    "the broker refuses all that is published; trying another channel",
                    extra={"link": self._link.name},
                )
                return

    def _report(self, error: BaseException) -> None:
        known = to_bus_error(error, "opening a channel to publish")
        log.warning(
            "cannot publish; trying again", extra={"link": self._link.name, "why": str(known)}
        )

    async def publish(
        self, envelope: Envelope, address: Address, *, timeout: float
    ) -> PublishOutcome:
        """Publish; `Transport.send` says what is raised."""
        if self._now is None:
            raise Unavailable("not sent: the transport is not started")
        if timeout <= 0:
            raise DeadlineExceeded(f"{envelope.type}: the deadline had passed before it was sent")
        ends = self._now() + timeout
        while True:
            current = self._current
            if current is None or not current.alive:
                current = await self._next(ends)
            try:
                return await current.publish(envelope, address, ends)
            except Unavailable as error:
                if error.maybe_executed or current.alive or self._now() >= ends:
                    raise  # else it was surely not sent, and the next channel may take it

    async def _next(self, ends: float) -> PublisherChannelPort:
        """The open channel; `Unavailable`, surely not sent, where there is none in time."""
        try:
            async with asyncio.timeout_at(ends):
                while True:
                    await self._open.wait()
                    if self._current is not None and self._current.alive:
                        return self._current
                    self._open.clear()  # until the next channel
        except TimeoutError:
            raise Unavailable(
                f"not sent: {self._link.last_error or 'no channel to the broker'}"
            ) from None

    async def close(self) -> None:
        """Publish no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)
