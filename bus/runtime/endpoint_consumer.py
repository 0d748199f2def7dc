"""The consumer of one endpoint, which can be paused and resumed."""

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from bus.messaging.ports.transport import ConsumerHandle
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.operator_pause import OPERATOR_PAUSE, STUCK_HANDLER, OperatorPause
from bus.runtime.prefetched_consumer import DeliverySource, PrefetchedConsumer
from bus.runtime.receiver import Receiver

__all__ = ["DEPENDENCY_PAUSE", "POISON_ISOLATION", "EndpointConsumer"]

POISON_ISOLATION = "poison-isolation"
"""Reason of a pause: the process handles a poison candidate alone."""
DEPENDENCY_PAUSE = "dependency:"
"""Prefix of the reason of a pause: the dependency with the name that follows is down."""


class EndpointConsumer(PrefetchedConsumer):
    """A `ConsumerHandle` for one endpoint, which the poison isolation and operators can pause."""

    def __init__(self, source: DeliverySource, receiver: Receiver) -> None:
        super().__init__(source, receiver)
        self._is_request = receiver.state.endpoint.contract.kind == "request"
        self._paused = asyncio.Event()
        """Set while the poison isolation pauses this endpoint."""
        self.operator_pause: OperatorPause | None = None
        """The pause that an operator has requested, or None."""
        self._held = asyncio.Event()
        """Set while `operator_pause` is not None."""
        self._turn = asyncio.Lock()
        """Lock of a change between paused and not paused."""
        self._closing: set[asyncio.Task[None]] = set()
        """The tasks that close earlier consumers."""

    async def start(self) -> None:
        """Start the first consumer, unless an operator has paused this endpoint."""
        if self.operator_pause is None:
            await self._start()

    # --- For reports ---

    @property
    def state(self) -> EndpointState:
        """The endpoint, with its slots, its messages in flight and its measurements."""
        return self._receiver.state

    @property
    def pauses(self) -> tuple[str, ...]:
        """The reasons why no message starts now, or why the consumer is degraded.

        If its dependency is down, a consumer stays registered, so it stays ready.
        """
        reasons = [POISON_ISOLATION] if self._paused.is_set() else []
        if self.operator_pause is not None:
            reasons.append(OPERATOR_PAUSE)
        if self._in_flight.stuck:
            reasons.append(STUCK_HANDLER)
        gate = None if self._is_request else self.state.dependency  # a request is refused
        if gate is not None and gate.is_paused:
            reasons.append(f"{DEPENDENCY_PAUSE}{gate.dependency.name}")
        return tuple(reasons)

    @property
    @override
    def is_paused(self) -> bool:
        """True if the poison isolation or an operator has paused this endpoint."""
        return self._paused.is_set() or self._held.is_set()

    # --- For the poison isolation ---

    @property
    def counts_deliveries(self) -> bool:
        """True if lost deliveries count toward a delivery limit, as for events and jobs."""
        return not self._is_request

    @property
    def is_idle(self) -> bool:
        """True if no delivery arrives and no message runs.

        Either the consumer is paused, or its only message waits to be processed alone.
        """
        has_one_slot = self._raising is None and (
            self._tracks_delivery_count or self._prefetch == 1
        )
        return self._paused.is_set() or (has_one_slot and self._in_flight.has_deferred)

    async def pause(self) -> None:
        """Stop deliveries, and wait until all messages except poison candidates have ended.

        Messages that wait for a dependency return by a retry tier. If the candidate ends the
        process, these messages then lose no delivery.
        """
        self._paused.set()
        async with self._turn:
            await self.stop_deliveries()
        await self._in_flight.wait_idle()

    async def resume(self) -> None:
        """Start a new consumer, and close the earlier consumers.

        All deliveries of the earlier consumers are settled when this method is called.
        """
        async with self._turn:
            earlier = [*self._open]
            if self.operator_pause is None:
                self._in_flight.permit_holds()
                await self._start()
            self._paused.clear()
            for consumer in earlier:
                await consumer.close()
                self._remove(consumer)

    # --- For the pause by an operator ---

    async def hold(self, pause: OperatorPause) -> None:
        """Stop deliveries until `release`. Running messages finish.

        Messages that wait for a dependency return by a retry tier, without an attempt.
        """
        async with self._turn:
            was_held, self.operator_pause = self._held.is_set(), pause
            self._held.set()
            if not was_held and not self._paused.is_set():
                await self.stop_deliveries()

    async def release(self) -> None:
        """Start a new consumer. The earlier ones are closed when their messages have ended."""
        async with self._turn:
            if self.operator_pause is None:
                return
            if not self._paused.is_set():
                earlier, running = [*self._open], self._in_flight.running()
                self._in_flight.permit_holds()
                await self._start()
                task = asyncio.create_task(self._close_after(running, earlier))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            self.operator_pause = None
            self._held.clear()

    async def _close_after(
        self, running: Sequence[asyncio.Task[None]], consumers: Sequence[ConsumerHandle]
    ) -> None:
        """Close consumers after their messages have ended, so the broker requeues none."""
        if running:
            await asyncio.wait(running)
        if not self._in_flight.has_deferred:  # otherwise `resume` closes them
            for consumer in consumers:
                await consumer.close()
                self._remove(consumer)

    # --- The methods of ConsumerHandle ---

    @property
    @override
    def ready(self) -> bool:
        """True if the consumer is registered at the broker now, or an operator has paused it."""
        if self._paused.is_set():
            return False
        if self.operator_pause is not None:
            return True
        return super().ready

    @property
    def last_error(self) -> str | None:
        """The reason why the consumer is not ready, or None."""
        if self._paused.is_set():
            return "paused: a message is processed alone"
        if self.operator_pause is not None:
            return None
        return self._current.last_error if self._current is not None else None

    async def wait_ready(self) -> None:
        """Wait until the consumer is ready or paused.

        A paused consumer is not registered, and must not delay the start of the service.
        """
        calls = (self._registered(), self._paused.wait(), self._held.wait())
        waits = [asyncio.ensure_future(call) for call in calls]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _registered(self) -> None:
        if self._current is not None:
            await self._current.wait_ready()

    @override
    async def close(self) -> None:
        """Close all consumers. The broker requeues every unacked message."""
        for task in self._closing:
            task.cancel()
        await super().close()
