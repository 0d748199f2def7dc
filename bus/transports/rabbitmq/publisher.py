"""Publishing on a confirmed channel, opened again for ever."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError, PublishError

from bus.errors import ConnectionLost, DeadlineExceeded, InvalidArgument, Unavailable
from bus.recovery import supervised
from bus.topology import BASE, Address
from bus.transport import Accepted, Outcome, Refused, Returned
from bus.transports.rabbitmq.codec import to_properties
from bus.transports.rabbitmq.faults import TROUBLE, is_foreign_cancel, translated
from bus.transports.rabbitmq.link import Link, quietly_closed
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
        if len(wire.body) > LARGEST_BODY:
            raise InvalidArgument(f"the message has {len(wire.body)} bytes, and {LARGEST_BODY} is the most; store it and send a reference")
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        async with self._place(wire.message_id or "", timeout) as channel:
            return await publish_on(channel, wire, address, timeout=max(0.0, ends - loop.time()))

    @asynccontextmanager
    async def _place(self, message_id: str, timeout: float) -> AsyncIterator[Channel]:
        """A place in the window and a channel that is open; `Unavailable`, surely not sent, where there is none in time."""
        try:
            async with asyncio.timeout(timeout):
                await self._window.acquire()
        except TimeoutError:
            raise Unavailable("not sent: too many publishes wait for their confirm") from None
        try:
            channel = await self._alone(message_id, timeout)
            done = self._in_flight[message_id] = asyncio.Event()
            try:
                yield channel
            finally:
                del self._in_flight[message_id]
                done.set()
        finally:
            self._window.release()

    async def _alone(self, message_id: str, timeout: float) -> Channel:
        """The open channel, once no other copy of the message is under way: aiormq tells returns apart by id alone."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._link.unblocked()
                    await self._open.wait()
                    copy = self._in_flight.get(message_id)
                    if copy is None and self._channel is not None:
                        return self._channel
                    if copy is not None:
                        await copy.wait()
        except TROUBLE as error:
            why = self._link.trouble or ("the broker takes no publishes now" if isinstance(error, TimeoutError) else str(error))
            raise Unavailable(f"not sent: {why}") from None

    async def close(self) -> None:
        """Publish no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def publish_on(channel: Channel, wire: Wire, address: Address, *, timeout: float) -> Outcome:
    """Publish on this confirmed channel, and wait for what the broker says."""
    try:
        await channel.basic_publish(
            wire.body,
            exchange=address.exchange,
            routing_key=address.routing_key,
            properties=to_properties(wire),
            mandatory=address.mandatory,
            timeout=timeout,
            wait=False,
        )
    except PublishError as error:
        return Returned(reason=str(getattr(error.frame, "reply_text", "") or "returned"))
    except DeliveryError:
        return Refused(reason="basic.nack")
    except TimeoutError:
        raise DeadlineExceeded("no confirm within the deadline", maybe_executed=True) from None
    except asyncio.CancelledError:
        if not is_foreign_cancel():
            raise
        raise ConnectionLost("the connection went before the confirm", maybe_executed=True) from None
    except TROUBLE as error:
        raise ConnectionLost(f"{translated(error, 'waiting for the confirm')}", maybe_executed=True) from None
    return Accepted()
