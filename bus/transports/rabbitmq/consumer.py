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

from bus.messaging.supervision import run_forever
from bus.messaging.topology.model import Queue, Topology
from bus.transports.rabbitmq.connection import (
    CLOSE_TIMEOUT_SECONDS,
    RPC_TIMEOUT_SECONDS,
    OpenConnection,
    close_quietly,
)
from bus.transports.rabbitmq.consumer_timeout import consumer_arguments
from bus.transports.rabbitmq.draining_channel import DrainingChannel
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, map_errors, to_bus_error

__all__ = ["ConsumerChannelPort", "RabbitMQConsumer"]

log = logging.getLogger("bus.rabbitmq")


class ConsumerChannelPort(Protocol):
    """One channel's life, on the fast lane or not."""

    ended: "asyncio.Future[str]"
    cancelled: bool
    """Whether the broker has cancelled its consumer: then an ack may come too late to count."""
    idle: asyncio.Event
    """Set once it is cancelled and holds nothing any more."""

    @property
    def has_unsettled(self) -> bool:
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


class RabbitMQConsumer:
    """A queue's consumer; `Consumption` is its port."""

    def __init__(  # noqa: PLR0913 - what `Transport.consume` takes, and the link
        self,
        link: OpenConnection,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        acks: bool,
        confirms: bool,
        channel_factory: Callable[[Channel], ConsumerChannelPort],
        consumer_timeout: float | None = None,
    ) -> None:
        """`opened` makes of a channel, with publisher confirms or without, what consumes on it."""
        self._link = link
        self._queue = queue
        self._topology = topology
        self._prefetch = prefetch
        self._acks = acks
        self._confirms = confirms
        self._opened = channel_factory
        self._consumer_timeout = consumer_timeout
        self._channel: Channel | None = None
        self._current: ConsumerChannelPort | None = None
        self._tag = ""
        self._ready = asyncio.Event()
        self._between_calls = asyncio.Event()
        """Not set while it registers, which takes some calls to the broker."""
        self._between_calls.set()
        self._stopping = False
        self._closing = False
        self._lingering: list[DrainingChannel] = []
        """Its channels of before, on which something is not settled."""
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def ready(self) -> bool:
        """Whether the broker has it registered now."""
        return (
            self._ready.is_set()
            and self._current is not None
            and self._current.alive
            and not self._current.ended.done()
        )

    async def wait_ready(self) -> None:
        """Returns when it is ready."""
        while not self.ready:
            self._ready.clear()
            await self._ready.wait()

    def start(self) -> None:
        """Consume, and again whenever that ends."""
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"consumer {self.name}",
        )

    async def _step(self) -> None:
        if self._stopping:
            await (
                asyncio.Event().wait()
            )  # until close: a consumer that was told to stop does not come back
        await self._link.up.wait()
        self._between_calls.clear()
        try:
            await self._link.declare(self._topology)
            await self._take_from(await self._open_channel())
        finally:
            self._between_calls.set()

    async def _take_from(self, channel: Channel) -> None:
        """Consume on a channel for as long as that goes well, and give it back."""
        current: ConsumerChannelPort | None = None
        try:
            current = self._opened(
                channel
            )  # before consuming: the first delivery may come with the answer
            await self._consume(channel, current)
            if self._stopping:
                return  # told while it was about to consume: what came goes back with the channel
            self._between_calls.set()
            await asyncio.wait(
                (channel.closing, current.ended), return_when=asyncio.FIRST_COMPLETED
            )
            self._between_calls.clear()
            if not self._stopping:
                self.last_error = (
                    current.ended.result() if current.ended.done() else "its channel was closed"
                )
                log.warning(
                    "a consumer ended; consuming again",
                    extra={"queue": self.name, "why": self.last_error},
                )
        finally:
            self._ready.clear()
            if current is not None and self._should_drain(current) and not channel.is_closed:
                self._current = None
                self._start_draining(channel, current)
            else:
                if current is not None:
                    current.release()
                await self._close_channel(channel)

    def _start_draining(self, channel: Channel, current: ConsumerChannelPort) -> None:
        """What those before it have still got came before what is overdue now, so it was overdue earlier, and is theirs no more."""
        for each in self._lingering:
            each.end()
        self._lingering = [each for each in self._lingering if not each.ended]
        self._lingering.append(
            DrainingChannel(channel, current, self._tag, leave=self._close_channel)
        )

    # --- how it is done on a connection of ours; on another library's it is done by its means ---

    async def _open_channel(self) -> Channel:
        return await self._link.channel(confirms=self._confirms)

    async def _register(self, channel: Channel, current: ConsumerChannelPort) -> str:
        """Become a consumer at the broker; its tag, fresh each time: one that is used again ends a connection on 4.3."""
        tag = f"trunkline-{secrets.token_hex(6)}"
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=RPC_TIMEOUT_SECONDS)
        queue = self._link.broker_name_of(self.name)
        acks, arguments = self._acks, self._arguments()
        await channel.basic_consume(
            queue,
            current.take,
            no_ack=not acks,
            arguments=arguments,
            consumer_tag=tag,
            timeout=RPC_TIMEOUT_SECONDS,
        )
        return tag

    def _arguments(self) -> FieldTable:
        """What the broker is told of this consumer, where it listens."""
        if self._consumer_timeout is None or not self._link.supports_consumer_timeout(self._queue):
            return {}
        return consumer_arguments(self._consumer_timeout)

    async def _close_channel(self, channel: Channel) -> None:
        await close_quietly(channel)

    def _should_drain(self, current: ConsumerChannelPort) -> bool:
        """Whether the channel stays without its consumer, for the acks of what came on it."""
        return current.cancelled and self._acks and current.has_unsettled and not self._closing

    # ---

    async def _consume(self, channel: Channel, current: ConsumerChannelPort) -> None:
        self._tag = await self._register(channel, current)
        self._channel, self._current = channel, current
        self.last_error = None
        if not self._stopping:
            self._ready.set()

    def _report(self, error: BaseException) -> None:
        known = str(to_bus_error(error, f"consuming {self.name}"))
        if known != self.last_error:
            log.warning("cannot consume; trying again", extra={"queue": self.name, "why": known})
        self.last_error = known

    async def cancel(self) -> None:
        """No further deliveries; the channel stays for acks."""
        self._stopping = True
        self._ready.clear()
        if self._channel is not None and self._current is not None and self._current.alive:
            with map_errors(f"cancelling the consumer of {self.name}"):
                await self._channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT_SECONDS)

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
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)
        await asyncio.gather(*(each.close() for each in self._lingering))

    async def _pause_between_calls(self) -> None:
        """A call that is cut off makes aiormq close the channel twice, and the broker ends the whole connection for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._between_calls.wait()
