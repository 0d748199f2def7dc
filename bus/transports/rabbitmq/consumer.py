"""A supervised consumer: one channel, one consumer, declared and consumed again for ever."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import aiormq.abc
from aiormq.channel import Channel
from pamqp.common import FieldTable

from bus.messaging.supervision import supervised
from bus.messaging.topology.model import Queue, Topology
from bus.transports.rabbitmq.connection import CLOSE_TIMEOUT, RPC_TIMEOUT, Connected, quietly_closed
from bus.transports.rabbitmq.consumer_timeout import consumer_arguments
from bus.transports.rabbitmq.draining_channel import Lingering
from bus.transports.rabbitmq.exceptions import TROUBLE, translated, translating

__all__ = ["Consumer", "Consuming"]

log = logging.getLogger("bus.rabbitmq")


class Consuming(Protocol):
    """One channel's life, on the fast lane or not."""

    ended: "asyncio.Future[str]"
    cancelled: bool
    """Whether the broker has cancelled its consumer: then an ack may come too late to count."""
    idle: asyncio.Event
    """Set once it is cancelled and holds nothing any more."""

    @property
    def holds(self) -> bool:
        """Whether something that came is not settled."""
        ...

    @property
    def alive(self) -> bool:
        """Whether what came on it can be settled."""
        ...

    async def take(self, message: aiormq.abc.DeliveredMessage) -> None:
        """A message, from aiormq; on the fast lane none comes this way."""
        ...

    def release(self) -> None:
        """It is about to be closed."""
        ...


class Consumer:
    """A queue's consumer; `Consumption` is its port."""

    def __init__(  # noqa: PLR0913 - what `Transport.consume` takes, and the link
        self,
        link: Connected,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        acks: bool,
        confirms: bool,
        opened: Callable[[Channel], Consuming],
        patience: float | None = None,
    ) -> None:
        """`opened` makes of a channel, with publisher confirms or without, what consumes on it."""
        self._link = link
        self._queue = queue
        self._topology = topology
        self._prefetch = prefetch
        self._acks = acks
        self._confirms = confirms
        self._opened = opened
        self._patience = patience
        self._channel: Channel | None = None
        self._current: Consuming | None = None
        self._tag = ""
        self._ready = asyncio.Event()
        self._between_calls = asyncio.Event()
        """Not set while it registers, which takes some calls to the broker."""
        self._between_calls.set()
        self._stopping = False
        self._closing = False
        self._lingering: list[Lingering] = []
        """Its channels of before, on which something is not settled."""
        self._task: asyncio.Task[None] | None = None
        self.trouble: str | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def ready(self) -> bool:
        """Whether the broker has it registered now."""
        return self._ready.is_set() and self._current is not None and self._current.alive and not self._current.ended.done()

    async def wait_ready(self) -> None:
        """Returns when it is ready."""
        while not self.ready:
            self._ready.clear()
            await self._ready.wait()

    def start(self) -> None:
        """Consume, and again whenever that ends."""
        self._task = asyncio.create_task(supervised(self._step, trouble=TROUBLE, report=self._report), name=f"consumer {self.name}")

    async def _step(self) -> None:
        if self._stopping:
            await asyncio.Event().wait()  # until close: a consumer that was told to stop does not come back
        await self._link.up.wait()
        self._between_calls.clear()
        try:
            await self._link.declare(self._topology)
            await self._take_from(await self._channel_of_its_own())
        finally:
            self._between_calls.set()

    async def _take_from(self, channel: Channel) -> None:
        """Consume on a channel for as long as that goes well, and give it back."""
        current: Consuming | None = None
        try:
            current = self._opened(channel)  # before consuming: the first delivery may come with the answer
            await self._consume(channel, current)
            if self._stopping:
                return  # told while it was about to consume: what came goes back with the channel
            self._between_calls.set()
            await asyncio.wait((channel.closing, current.ended), return_when=asyncio.FIRST_COMPLETED)
            self._between_calls.clear()
            if not self._stopping:
                self.trouble = current.ended.result() if current.ended.done() else "its channel was closed"
                log.warning("a consumer ended; consuming again", extra={"queue": self.name, "why": self.trouble})
        finally:
            self._ready.clear()
            if current is not None and self._outlives(current) and not channel.is_closed:
                self._current = None
                self._linger(channel, current)
            else:
                if current is not None:
                    current.release()
                await self._leave(channel)

    def _linger(self, channel: Channel, current: Consuming) -> None:
        """What those before it have still got came before what is overdue now, so it was overdue earlier, and is theirs no more."""
        for each in self._lingering:
            each.end()
        self._lingering = [each for each in self._lingering if not each.ended]
        self._lingering.append(Lingering(channel, current, self._tag, leave=self._leave))

    # --- how it is done on a connection of ours; on another library's it is done by its means ---

    async def _channel_of_its_own(self) -> Channel:
        return await self._link.channel(confirms=self._confirms)

    async def _register(self, channel: Channel, current: Consuming) -> str:
        """Become a consumer at the broker; its tag, fresh each time: one that is used again ends a connection on 4.3."""
        tag = f"trunkline-{secrets.token_hex(6)}"
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=RPC_TIMEOUT)
        queue = self._link.given(self.name)
        acks, arguments = self._acks, self._arguments()
        await channel.basic_consume(queue, current.take, no_ack=not acks, arguments=arguments, consumer_tag=tag, timeout=RPC_TIMEOUT)
        return tag

    def _arguments(self) -> FieldTable:
        """What the broker is told of this consumer, where it listens."""
        if self._patience is None or not self._link.heeds_patience(self._queue):
            return {}
        return consumer_arguments(self._patience)

    async def _leave(self, channel: Channel) -> None:
        await quietly_closed(channel)

    def _outlives(self, current: Consuming) -> bool:
        """Whether the channel stays without its consumer, for the acks of what came on it."""
        return current.cancelled and self._acks and current.holds and not self._closing

    # ---

    async def _consume(self, channel: Channel, current: Consuming) -> None:
        self._tag = await self._register(channel, current)
        self._channel, self._current = channel, current
        self.trouble = None
        if not self._stopping:
            self._ready.set()

    def _report(self, error: BaseException) -> None:
        known = str(translated(error, f"consuming {self.name}"))
        if known != self.trouble:
            log.warning("cannot consume; trying again", extra={"queue": self.name, "why": known})
        self.trouble = known

    async def cancel(self) -> None:
        """No further deliveries; the channel stays for acks."""
        self._stopping = True
        self._ready.clear()
        if self._channel is not None and self._current is not None and self._current.alive:
            with translating(f"cancelling the consumer of {self.name}"):
                await self._channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT)

    @property
    def closed(self) -> bool:
        """Whether it will never consume again, and its channel is gone."""
        return self._task is not None and self._task.done()

    async def close(self) -> None:
        """Consume no more, and close the channel: the broker takes back what is unacked. Acks of this turn are on their way before."""
        self._stopping = self._closing = True
        if self._task is not None:
            await self._pause_between_calls()
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT)
        await asyncio.gather(*(each.close() for each in self._lingering))

    async def _pause_between_calls(self) -> None:
        """A call that is cut off makes aiormq close the channel twice, and the broker ends the whole connection for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._between_calls.wait()
