"""A supervised consumer of one queue. The consumer has its own channel.

After each failure, the consumer declares the queue and registers again. The number of attempts is
not limited.
"""

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
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.transports.rabbitmq.consumer_timeout import consumer_arguments
from bus.transports.rabbitmq.draining_channel import DrainingChannel
from bus.transports.rabbitmq.exceptions import EXPECTED_ERRORS, map_errors, to_bus_error
from bus.transports.rabbitmq.open_connection import (
    CLOSE_TIMEOUT_SECONDS,
    RPC_TIMEOUT_SECONDS,
    OpenConnection,
    close_quietly,
)

__all__ = ["ConsumerChannelPort", "RabbitMQConsumer"]

log = logging.getLogger("bus.rabbitmq")


class ConsumerChannelPort(Protocol):
    """The interface of a consumer's channel, with or without the fast lane."""

    ended: "asyncio.Future[str]"
    max_body_bytes: int
    """Maximum bytes of a body. A larger body is dropped while it arrives."""
    cancelled: bool
    """True if the broker has cancelled the consumer.

    After the cancellation, an ack has no effect if the broker has already requeued the delivery.
    """
    idle: asyncio.Event
    """Event that is set when the broker cancelled the consumer and all deliveries are settled."""

    @property
    def has_unsettled(self) -> bool:
        """True if a delivery of the channel is not settled."""
        ...

    @property
    def alive(self) -> bool:
        """True if the deliveries of the channel can be settled."""
        ...

    async def take(self, message: aiormq.abc.DeliveredMessage) -> None:
        """Receive a message from aiormq. With the fast lane, aiormq does not call this method."""
        ...

    def release(self) -> None:
        """Stop using the channel. Call this method before you close the channel."""
        ...


class RabbitMQConsumer:
    """The consumer of one queue; it implements `ConsumerHandle`."""

    def __init__(
        self,
        link: OpenConnection,
        spec: ConsumerSpec,
        *,
        confirms: bool,
        channel_factory: Callable[[Channel], ConsumerChannelPort],
    ) -> None:
        """Create a consumer that is not started.

        Args:
            link: The connection.
            spec: The queue, and the options of the consumer.
            confirms: If True, open the channel in confirm mode.
            channel_factory: Creates the object that consumes on an open channel.
        """
        self._link = link
        self._spec = spec
        self._queue = spec.queue
        self._confirms = confirms
        self._channel_factory = channel_factory
        self._channel: Channel | None = None
        self._current: ConsumerChannelPort | None = None
        self._tag = ""
        self._ready = asyncio.Event()
        self._between_calls = asyncio.Event()
        """Event that is cleared while a call to declare, register or close is in flight."""
        self._between_calls.set()
        self._stopping = False
        self._closing = False
        self._draining: list[DrainingChannel] = []
        """Earlier channels that stay open for the acks of their deliveries."""
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def ready(self) -> bool:
        """True if the consumer is registered at the broker now."""
        return (
            self._ready.is_set()
            and self._current is not None
            and self._current.alive
            and not self._current.ended.done()
        )

    async def wait_ready(self) -> None:
        """Wait until the consumer is ready."""
        while not self.ready:
            self._ready.clear()
            await self._ready.wait()

    def start(self) -> None:
        """Start to consume, and register again after each failure."""
        self._task = asyncio.create_task(
            run_forever(self._step, expected=EXPECTED_ERRORS, on_error=self._report),
            name=f"consumer {self.name}",
        )

    async def _step(self) -> None:
        if self._stopping:
            # After `cancel` the consumer must not register again. This task waits until `close`
            # cancels it.
            await asyncio.Event().wait()
        await self._link.up.wait()
        self._between_calls.clear()
        try:
            await self._link.declare(self._spec.topology)
            await self._take_from(await self._open_channel())
        finally:
            self._between_calls.set()

    async def _take_from(self, channel: Channel) -> None:
        """Consume until the channel or the consumer ends.

        If acks must still be written on the channel, keep the channel open. Otherwise, close it.
        """
        current: ConsumerChannelPort | None = None
        try:
            # The first delivery can arrive together with the answer to `basic.consume`. So the
            # object that handles deliveries is created before `basic.consume` is sent.
            current = self._channel_factory(channel)
            await self._consume(channel, current)
            if self._stopping:
                # `cancel` was called during the registration. The broker requeues the deliveries
                # when the channel is closed.
                return
            self._between_calls.set()
            await asyncio.wait(
                (channel.closing, current.ended), return_when=asyncio.FIRST_COMPLETED
            )
            self._between_calls.clear()
            if not self._stopping:
                self._report_end(
                    current.ended.result() if current.ended.done() else "the channel was closed"
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
        """Keep a channel open for the acks of its deliveries. Close the older draining channels.

        All deliveries of the older channels were delivered before the delivery that has just timed
        out. So the broker has already requeued these older deliveries.
        """
        for draining in self._draining:
            draining.end()
        self._draining = [draining for draining in self._draining if not draining.ended]
        self._draining.append(
            DrainingChannel(channel, current, self._tag, leave=self._close_channel)
        )

    def _report_end(self, why: str) -> None:
        self.last_error = why
        log.warning(
            "the consumer of %s ended (%s); consuming again",
            self.name,
            why,
            extra={"queue": self.name, "why": why},
        )

    # --- Steps that the FastStream consumer overrides ---

    async def _open_channel(self) -> Channel:
        return await self._link.channel(confirms=self._confirms)

    async def _register(self, channel: Channel, current: ConsumerChannelPort) -> str:
        """Register the consumer at the broker, and return its new consumer tag.

        The tag must be new, because RabbitMQ 4.3 closes a connection that uses a tag twice.
        """
        tag = f"trunkline-{secrets.token_hex(6)}"
        await channel.basic_qos(prefetch_count=self._spec.prefetch, timeout=RPC_TIMEOUT_SECONDS)
        queue = self._link.broker_name_of(self.name)
        acks, arguments = self._spec.acks, self._arguments()
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
        """Return the consumer arguments that set the consumer timeout.

        The result is empty if no timeout is set, or if the broker does not support a consumer's own
        timeout for this queue.
        """
        if self._spec.consumer_timeout is None or not self._link.supports_consumer_timeout(
            self._queue
        ):
            return {}
        return consumer_arguments(self._spec.consumer_timeout)

    async def _close_channel(self, channel: Channel) -> None:
        await close_quietly(channel)

    def _should_drain(self, current: ConsumerChannelPort) -> bool:
        """Return True if the broker has cancelled the consumer and some deliveries need an ack."""
        return current.cancelled and self._spec.acks and current.has_unsettled and not self._closing

    # --- Registration and end ---

    async def _consume(self, channel: Channel, current: ConsumerChannelPort) -> None:
        self._tag = await self._register(channel, current)
        self._channel, self._current = channel, current
        self.last_error = None
        if not self._stopping:
            self._ready.set()

    def _report(self, error: BaseException) -> None:
        reason = str(to_bus_error(error, f"consuming {self.name}"))
        if reason != self.last_error:
            log.warning(
                "%s: cannot consume (%s); trying again",
                self.name,
                reason,
                extra={"queue": self.name, "why": reason},
            )
        self.last_error = reason

    async def cancel(self) -> None:
        """Cancel the consumer at the broker. The channel stays open for acks."""
        self._stopping = True
        self._ready.clear()
        if self._channel is not None and self._current is not None and self._current.alive:
            with map_errors(f"cancelling the consumer of {self.name}"):
                await self._channel.basic_cancel(self._tag, timeout=CLOSE_TIMEOUT_SECONDS)

    @property
    def closed(self) -> bool:
        """True if the consumer has ended permanently and its channel is closed."""
        return self._task is not None and self._task.done()

    async def close(self) -> None:
        """Stop the consumer and close its channels; the broker requeues unacked messages.

        Acks from the current turn of the event loop are written before the channels are closed.
        """
        self._stopping = self._closing = True
        if self._task is not None:
            await self._pause_between_calls()
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * CLOSE_TIMEOUT_SECONDS)
        await asyncio.gather(*(draining.close() for draining in self._draining))

    async def _pause_between_calls(self) -> None:
        """Wait until no call to the broker is in flight. Wait at most `CLOSE_TIMEOUT_SECONDS`.

        If a call is interrupted, aiormq closes the channel twice, and the broker then closes the
        connection.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._between_calls.wait()
