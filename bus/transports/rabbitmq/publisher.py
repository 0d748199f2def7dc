"""Publishing on a confirmed channel, opened again for ever."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError
from pamqp.commands import Basic

from bus.errors import BusError, ConnectionLost, DeadlineExceeded, InvalidArgument, Unavailable
from bus.recovery import supervised
from bus.topology import BASE, Address
from bus.transport import Accepted, Outcome, Refused, Returned
from bus.transports.rabbitmq.codec import to_properties
from bus.transports.rabbitmq.faults import TROUBLE, translated, translating
from bus.transports.rabbitmq.link import CLOSE_TIMEOUT, Link, quietly_closed
from bus.transports.wire import Wire

__all__ = ["Publisher", "publish_on"]

log = logging.getLogger("bus.rabbitmq")

LARGEST_BODY = 16 * 1024 * 1024
"""Bytes; RabbitMQ 4's default `max_message_size`. A larger one would cost the channel, and all that is under way on it."""


class Publisher:
    """Publishes on one channel of a link; many publishes may wait for their confirm at a time."""

    def __init__(self, link: Link, *, window: int) -> None:
        """`window`: publishes that may wait for their confirm at a time."""
        self._link = link
        self._window = asyncio.Semaphore(window)
        self._in_flight: dict[str, asyncio.Event] = {}
        self._channel: Channel | None = None
        self._open = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Open the channel, and again whenever it ends."""
        self._task = asyncio.create_task(supervised(self._step, trouble=TROUBLE, report=self._report), name=f"publisher {self._link.name}")

    async def _step(self) -> None:
        await self._link.up.wait()
        await self._link.declare(BASE)  # a publish to an exchange that is not there would cost the channel
        channel = await self._link.channel(confirms=True)
        self._channel = channel
        self._open.set()
        try:
            await asyncio.wait([channel.closing])
        finally:
            self._open.clear()
            self._channel = None
            await quietly_closed(channel)

    def _report(self, error: BaseException) -> None:
        known = translated(error, "opening a channel to publish")
        log.warning("cannot publish; trying again", extra={"link": self._link.name, "why": str(known)})

    async def publish(self, wire: Wire, address: Address, *, timeout: float) -> Outcome:
        """Publish, and wait for the confirm; `Transport.send` says what is raised."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        async with self._place(wire.message_id or "", ends) as channel:
            return await publish_on(channel, wire, address, timeout=ends - loop.time())

    @asynccontextmanager
    async def _place(self, message_id: str, ends: float) -> AsyncIterator[Channel]:
        """A place in the window and a channel that is open; `Unavailable`, surely not sent, where there is none in time."""
        try:
            async with asyncio.timeout_at(ends):
                await self._window.acquire()
        except TimeoutError:
            raise Unavailable("not sent: too many publishes wait for their confirm") from None
        try:
            channel = await self._alone(message_id, ends)
            done = self._in_flight[message_id] = asyncio.Event()
            try:
                yield channel
            finally:
                del self._in_flight[message_id]
                done.set()
        finally:
            self._window.release()

    async def _alone(self, message_id: str, ends: float) -> Channel:
        """The open channel, once no other copy of the message is under way: aiormq tells returns apart by id alone."""
        try:
            async with asyncio.timeout_at(ends):
                while True:
                    await self._link.unblocked()
                    await self._open.wait()
                    copy = self._in_flight.get(message_id)
                    if copy is not None:
                        await copy.wait()
                    elif self._channel is None or self._channel.is_closed:
                        self._open.clear()  # until the next channel
                    else:
                        return self._channel
        except TROUBLE as error:
            why = self._link.trouble or ("the broker takes no publishes now" if isinstance(error, TimeoutError) else str(error))
            raise Unavailable(f"not sent: {why}") from None

    async def close(self) -> None:
        """Publish no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT)


async def publish_on(channel: Channel, wire: Wire, address: Address, *, timeout: float) -> Outcome:
    """Publish on this confirmed channel, and wait for what the broker says."""
    if len(wire.body) > LARGEST_BODY:
        raise InvalidArgument(f"the message has {len(wire.body)} bytes, and {LARGEST_BODY} is the most; store it and send a reference")
    properties = to_properties(wire)
    if timeout <= 0:
        raise DeadlineExceeded("the deadline had passed before it was sent")
    try:
        with translating("waiting for the confirm"):
            return await _confirmed(channel, wire, properties, address, timeout)
    except DeadlineExceeded:
        raise
    except BusError as error:
        sent = not isinstance(error, NotSent)
        raise ConnectionLost(str(error), maybe_executed=sent) from None


class NotSent(Unavailable):
    """The channel was closed before anything was written."""


async def _confirmed(channel: Channel, wire: Wire, properties: Basic.Properties, address: Address, timeout: float) -> Outcome:
    try:
        await channel.basic_publish(
            wire.body,
            exchange=address.exchange,
            routing_key=address.routing_key,
            properties=properties,
            mandatory=address.mandatory,
            timeout=timeout,
            wait=False,
        )
    except PublishError as error:
        return Returned(reason=str(getattr(error.frame, "reply_text", "") or "returned"))
    except DeliveryError:
        return Refused(reason="basic.nack")
    except ChannelInvalidStateError:
        raise NotSent("not sent: the channel was closed") from None
    except TimeoutError:
        raise DeadlineExceeded("no confirm within the deadline", maybe_executed=True) from None
    return Accepted()
