"""What one endpoint takes in: a consumption that begins with one message at a time, and can be halted and resumed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from bus.errors import BusError
from bus.messaging.ports.transport import ConsumerHandle, Delivery, Transport
from bus.runtime.poison_isolation import is_poison_candidate
from bus.runtime.receiver import Receiver

__all__ = ["EndpointConsumer"]

log = logging.getLogger("bus")


REGISTER_TIMEOUT_SECONDS = 5.0
"""Seconds that a halt waits for who is registering now; it takes some milliseconds, and is in vain where a queue cannot be had."""


class EndpointConsumer:
    """A `Consumption` of whatever the transport has for it now.

    Where the broker counts losses it begins with a prefetch of 1, and takes the full one with the first delivery that is no
    suspect: what a dead process held comes back first, and must not come all at once into the next one.
    """

    def __init__(self, transport: Transport, receiver: Receiver) -> None:
        self._transport = transport
        self._receiver = receiver
        self._full = receiver.endpoint.concurrency
        self._narrow = 1 if receiver.counted else self._full
        self._open: list[ConsumerHandle] = []
        """All that are not closed."""
        self._current: ConsumerHandle | None = None
        """The one that counts."""
        self._widening: asyncio.Task[None] | None = None
        self._calling: asyncio.Task[None] | None = None
        """What is said to the broker now, on a channel with unacked messages."""
        self._halted = asyncio.Event()

    async def start(self) -> None:
        """Consume."""
        if self._narrow < self._full:
            self._current = await self._consume(self._narrow, self._on_first_delivery)
        else:
            self._current = await self._consume(self._full, self._receiver.on_delivery)

    async def _consume(
        self, prefetch: int, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        receiver = self._receiver
        consumption = await self._transport.consume(
            receiver.queue,
            receiver.topology,
            prefetch=prefetch,
            on_delivery=on_delivery,
            consumer_timeout=receiver.consumer_timeout,
        )
        self._open.append(consumption)
        return consumption

    # --- from one at a time to all -----------------------------------------------------------------------------------

    def _on_first_delivery(self, delivery: Delivery) -> None:
        """A delivery while there is one at a time."""
        self._receiver.on_delivery(delivery)
        if (
            self._widening is None
            and not self._halted.is_set()
            and not is_poison_candidate(delivery)
        ):
            self._widening = asyncio.create_task(
                self._raise_prefetch(), name=f"widening {self.name}"
            )

    async def _raise_prefetch(self) -> None:
        narrow = self._current
        wide = await self._consume(self._full, self._receiver.on_delivery)
        await wide.wait_ready()
        self._current = wide
        if narrow is not None:
            await self._close_initial_consumer(narrow)

    async def _close_initial_consumer(self, narrow: ConsumerHandle) -> None:
        """Close it once nothing of its own can be left: what is unacked on it would go back."""
        await self._run_shielded(_cancel(narrow))
        if running := self._receiver.running():
            await asyncio.wait(running)
        if (
            not self._receiver.has_deferred
        ):  # a suspect, perhaps its own: then all of this is about to be halted
            await self._run_shielded(narrow.close())
            self._open.remove(narrow)

    async def _run_shielded(self, call: Coroutine[Any, Any, None]) -> None:
        """A stop must not cut it short: that would cost the channel, and its work that is not acked yet would be done again elsewhere."""
        self._calling = asyncio.create_task(call)
        await asyncio.shield(self._calling)

    async def _stop_raising_prefetch(self) -> None:
        if self._widening is not None:
            self._widening.cancel()
            await asyncio.wait([self._widening])
            self._widening = None
        if self._calling is not None:
            await asyncio.wait([self._calling])
            self._calling = None

    # --- for the quarantine ------------------------------------------------------------------------------------------

    @property
    def counts_deliveries(self) -> bool:
        """Whether a loss counts against its messages."""
        return self._receiver.endpoint.contract.kind != "request"

    @property
    def is_idle(self) -> bool:
        """Whether nothing comes, and nothing runs: it is halted, or has one place, which a suspect has."""
        return self._halted.is_set() or (
            self._narrow == 1 and self._widening is None and self._receiver.has_deferred
        )

    async def pause(self) -> None:
        """No further deliveries; returns when what was delivered has ended, but for suspects."""
        self._halted.set()
        await self._stop_raising_prefetch()
        await asyncio.gather(*(_wait_registered(consumption) for consumption in self._open))
        await self.cancel()
        while running := self._receiver.running():
            await asyncio.wait(running)

    async def resume(self) -> None:
        """Consume anew, as at the beginning. Nothing that came before is left, so nothing goes back."""
        before = [*self._open]
        await self.start()
        self._halted.clear()
        for consumption in before:
            await consumption.close()
            self._open.remove(consumption)

    # --- the port ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._receiver.queue.name

    @property
    def ready(self) -> bool:
        """Whether the broker has it registered now."""
        return not self._halted.is_set() and self._current is not None and self._current.ready

    @property
    def last_error(self) -> str | None:
        """Why it is not ready."""
        if self._halted.is_set():
            return "halted: a message is run alone"
        return self._current.last_error if self._current is not None else None

    async def wait_ready(self) -> None:
        """Returns when it is ready, or was halted on purpose: a start must not fail by that."""
        waits = [asyncio.ensure_future(wait) for wait in (self._registered(), self._halted.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _registered(self) -> None:
        if self._current is not None:
            await self._current.wait_ready()

    async def cancel(self) -> None:
        """No further deliveries; what was delivered can still be acked."""
        await self._stop_raising_prefetch()
        await self._run_shielded(_cancel_all([*self._open]))  # a halt can be stopped, too

    async def close(self) -> None:
        """Consume no more; what is unacked goes back to the broker."""
        await self._stop_raising_prefetch()
        await asyncio.gather(*(consumption.close() for consumption in self._open))


async def _wait_registered(consumption: ConsumerHandle) -> None:
    """Wait until it is registered: what came before that would go back where it is cancelled meanwhile."""
    with suppress(TimeoutError):
        async with asyncio.timeout(REGISTER_TIMEOUT_SECONDS):
            await consumption.wait_ready()


async def _cancel_all(consumptions: Sequence[ConsumerHandle]) -> None:
    await asyncio.gather(*(_cancel(consumption) for consumption in consumptions))


async def _cancel(consumption: ConsumerHandle) -> None:
    """Cancel it; one whose channel is gone brings nothing any more."""
    try:
        await consumption.cancel()
    except BusError as error:
        log.warning(
            "a consumer could not be cancelled",
            extra={"queue": consumption.name, "why": str(error)},
        )
