"""The consumer of one endpoint, with a prefetch that can change while messages are handled."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label
from bus.messaging.ports.transport import ConsumerHandle, Delivery
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.runtime.consumer_cancellation import (
    AckHold,
    cancel_all,
    cancel_consumer,
    wait_registered,
)
from bus.runtime.held_messages import HoldEnd
from bus.runtime.poison_isolation import is_poison_candidate
from bus.runtime.receiver import Receiver

__all__ = ["DeliverySource", "PrefetchedConsumer"]

log = logging.getLogger("bus")


class DeliverySource(Protocol):
    """The method of a transport by which a consumer receives messages."""

    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        """Start a consumer, and return its handle."""
        ...


class PrefetchedConsumer:
    """The transport's current consumer of one endpoint.

    If the broker counts deliveries, the first consumer has a prefetch of 1. After a crash, the
    broker redelivers the messages of the crashed process first. With a prefetch of 1, the next
    process does not receive all of these messages at the same time. When a delivery arrives that is
    not a poison candidate, a consumer with the full prefetch replaces the first consumer.

    If the concurrency limit is adaptive, further consumers replace it later.
    """

    def __init__(self, source: DeliverySource, receiver: Receiver) -> None:
        """Create a consumer of a transport, or of the feed of durable jobs."""
        state = receiver.state
        self._source = source
        self._receiver = receiver
        self._spec = state.spec
        self._in_flight = state.in_flight
        self._prefetch = state.spec.prefetch
        """The full prefetch, which `change_prefetch` changes."""
        self._tracks_delivery_count = state.tracks_delivery_count
        self._open: list[ConsumerHandle] = []
        """The transport's consumers that are not closed yet."""
        self._cancelled: list[ConsumerHandle] = []
        """The open consumers that receive no more deliveries."""
        self._current: ConsumerHandle | None = None
        """The transport's consumer in use. The properties of this class return its state."""
        self._raising: asyncio.Task[None] | None = None
        self._hold: AckHold | None = None
        """The delay of the initial consumer's acks, until this consumer is cancelled."""
        self._has_failed = False
        """True if the last change of the prefetch failed."""
        self._broker_call: asyncio.Task[None] | None = None
        """The last call to the broker that a cancellation must not interrupt."""

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self._spec.queue.name

    @property
    def ready(self) -> bool:
        """True if the consumer is registered at the broker now."""
        return self._current is not None and self._current.ready

    @property
    def is_paused(self) -> bool:
        """True if no delivery may arrive now. A subclass has the reasons."""
        return False

    async def _start(self) -> None:
        if self._tracks_delivery_count and self._prefetch > 1:
            self._current = await self._consume(1, self._on_first_delivery)
        else:
            self._current = await self._consume(self._prefetch, self._receiver.on_delivery)

    async def _consume(
        self, prefetch: int, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        spec = replace(self._spec, prefetch=prefetch)
        consumer = await self._source.consume(spec, on_delivery)
        self._open.append(consumer)
        return consumer

    # --- From one message at a time to the full prefetch ---

    def _on_first_delivery(self, delivery: Delivery) -> None:
        if self._raising is None and not self.is_paused and not is_poison_candidate(delivery):
            self._hold = hold = AckHold()
            self._start_change(self._prefetch).add_done_callback(lambda _: hold.end())
        self._receiver.on_delivery(delivery, self._hold)

    def _start_change(self, prefetch: int) -> asyncio.Task[None]:
        earlier = self._prefetch, self._raising
        self._prefetch = prefetch
        self._raising = asyncio.create_task(
            self._change(earlier), name=f"changing the prefetch of {self.name}"
        )
        return self._raising

    async def _change(self, earlier: tuple[int, asyncio.Task[None] | None]) -> None:
        """Replace the consumer. If this fails, restore the `earlier` state for the next attempt."""
        initial = self._current
        try:
            full = await self._consume(self._prefetch, self._receiver.on_delivery)
            await full.wait_ready()
            self._current, self._has_failed = full, False
            if initial is not None:
                await self._close_initial_consumer(initial)
        except Exception as error:  # noqa: BLE001 - the exception would only end this task
            if self._current is initial:
                self._prefetch, self._raising = earlier
            self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        """Log that a change failed, once until a change succeeds."""
        facts = failure_facts(error)
        log.log(
            logging.DEBUG if self._has_failed else logging.WARNING,
            "%s: the consumer could not be replaced to change the prefetch: %s",
            self.name,
            failure_label(facts),
            extra={"queue": self.name, **facts},
        )
        self._has_failed = True

    def change_prefetch(self, prefetch: int) -> bool:
        """Replace the consumer by one with another prefetch.

        Deliveries of the replaced consumer stay unacked until their messages are handled, so the
        broker requeues none of them. It requeues the messages of a quorum queue that are in flight
        to the consumer during the cancellation. The prefetch of a registered consumer cannot
        change, because `basic.qos` applies to later consumers only. Quorum queues support no limit
        for a whole channel.

        Args:
            prefetch: The maximum number of unacked deliveries of the new consumer, at least 1.

        Returns:
            False if nothing was changed, because the consumer is paused, is not registered now, or
            is being replaced already.
        """
        is_initial = self._tracks_delivery_count and self._raising is None and self._prefetch > 1
        is_being_replaced = self._raising is not None and not self._raising.done()
        if is_being_replaced or self.is_paused or not self.ready:
            return False
        if is_initial:  # the first delivery registers the consumer with this prefetch
            self._prefetch = prefetch
        else:
            self._start_change(prefetch)
        return True

    @property
    def prefetch(self) -> int:
        """The maximum number of unacked deliveries, except those of replaced consumers."""
        return self._prefetch

    async def _close_initial_consumer(self, initial: ConsumerHandle) -> None:
        """Wait until all messages of the initial consumer are handled, and then close it.

        If the consumer were closed earlier, the broker would requeue the messages.
        """
        self._cancelled.append(initial)
        await self._run_shielded(cancel_consumer(initial))
        if self._hold is not None:
            self._hold.end()
        if running := self._in_flight.running():
            await asyncio.wait(running)
        # A message that waits to be processed alone still needs the consumer's channel. The poison
        # isolation then pauses this endpoint, and `resume` closes the consumer.
        if not self._in_flight.has_deferred:
            await self._run_shielded(initial.close())
            self._remove(initial)

    def _remove(self, consumer: ConsumerHandle) -> None:
        for consumers in (self._open, self._cancelled):
            if consumer in consumers:
                consumers.remove(consumer)

    async def _run_shielded(self, call: Coroutine[Any, Any, None]) -> None:
        """Make a call to the broker. The call continues even if this task is cancelled.

        An interrupted call closes the channel. The broker would then requeue the unacked messages,
        and another process would handle them again.
        """
        self._broker_call = asyncio.create_task(call)
        await asyncio.shield(self._broker_call)

    async def _stop_raising_prefetch(self) -> None:
        if self._raising is not None:
            self._raising.cancel()
            await asyncio.wait([self._raising])
            self._raising = None
        if self._broker_call is not None:
            await asyncio.wait([self._broker_call])
            self._broker_call = None

    # --- Cancellation ---

    async def stop_deliveries(self) -> None:
        """Stop deliveries. Messages that wait for a dependency return by a retry tier."""
        await self._stop_raising_prefetch()
        registered = [each for each in self._open if each not in self._cancelled]
        await asyncio.gather(*map(wait_registered, registered))
        await self.cancel()
        self._in_flight.end_holds(HoldEnd.RETURN)

    async def cancel(self) -> None:
        """Stop deliveries. Delivered messages can still be acked."""
        await self._stop_raising_prefetch()
        # Shielded, because a stop of the service can cancel the task that runs `pause`.
        self._cancelled = [*self._open]
        await self._run_shielded(cancel_all([*self._open]))

    async def close(self) -> None:
        """Close all consumers. The broker requeues every unacked message."""
        await self._stop_raising_prefetch()
        await asyncio.gather(*(consumer.close() for consumer in self._open))
