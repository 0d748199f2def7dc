"""The pauses of consumers that operators have requested, in one process.

All instances of a service receive an order. If the service has a store, each instance also writes
the order to the store. It reads the stored pauses at its start and once a minute. So an instance
that starts later, or that missed an order, follows it, too.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from bus.errors import BusError
from bus.messaging.jobs.pauses import Pause
from bus.messaging.orders import Applied, PauseConsumers, ResumeConsumers, Why
from bus.messaging.ports.store import Store
from bus.messaging.supervision import run_forever
from bus.messaging.timers import utc_date_and_time
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.operator_pause import OperatorPause
from bus.runtime.order_executor import OrderExecutor

__all__ = ["READ_SECONDS", "ConsumerPauses", "add_consumer_orders"]

log = logging.getLogger("bus.orders")

READ_SECONDS: Final = 60.0
"""Seconds between two reads of the stored pauses."""
ANSWER_SECONDS: Final = 0.5
"""Maximum seconds in which an order takes effect before its answer. It is less than the shortest
usual window for answers. A slow effect continues after the answer."""


class ConsumerPauses:
    """Pauses and resumes the consumers of one process."""

    def __init__(self, service: str, store: Store | None, clock: Callable[[], float]) -> None:
        """Create an object without consumers.

        Args:
            service: Name of the service, for the log.
            store: The durable store of the service, or None.
            clock: Function that returns seconds since the epoch.
        """
        self._service, self._store, self._clock = service, store, clock
        self._pauses: dict[str, OperatorPause] = {}
        """The pauses by work queue."""
        self._consumers: list[EndpointConsumer] = []
        self._changed = asyncio.Event()
        self._applying, self._storing = asyncio.Lock(), asyncio.Lock()
        self._effects: set[asyncio.Task[bool | None]] = set()
        """The effects of orders that still continue."""

    @asynccontextmanager
    async def following(self, consumers: Sequence[EndpointConsumer]) -> AsyncIterator[None]:
        """Follow the pauses inside the block. Enter it before the consumers start.

        A consumer with a stored pause begins paused.

        Args:
            consumers: The consumers whose handlers run. A recorder of jobs is not one of them.

        Raises:
            Unavailable: The store cannot be reached.
        """
        self._consumers += consumers
        task: asyncio.Task[None] | None = None
        try:
            await self._read()
            await self._apply()
            task = asyncio.create_task(
                run_forever(self._follow, expected=(), on_error=_ignore), name="consumer pauses"
            )
            yield
        finally:
            tasks = [task] if task is not None else []
            await _cancel([*tasks, *self._effects])
            self._consumers = [each for each in self._consumers if each not in consumers]

    # --- Orders ---

    async def pause(self, order: PauseConsumers, operator: str) -> Applied | Why:
        """Obey an order to pause consumers."""
        found = self._selected(order.target)
        if isinstance(found, str):
            return found
        if order.until_resumed and self._store is None:
            return "no-store"
        now = self._clock()
        pauses = [
            Pause(queue=queue, by=operator, reason=order.reason, at=now, until=order.until / 1000)
            for queue in sorted({each.name for each in found})
        ]
        for pause in pauses:
            self._pauses[pause.queue] = OperatorPause(pause, is_stored=False)
        stored = await self._take_effect(self._store_pauses(pauses, lasts=order.until_resumed))
        return Applied(changed=len(found), stored=stored)

    async def resume(self, order: ResumeConsumers, operator: str) -> Applied | Why:  # noqa: ARG002
        """Obey an order to resume consumers."""
        found = self._selected(order.target)
        if isinstance(found, str):
            return found
        queues = {each.name for each in found}
        changed = sum(each.operator_pause is not None for each in found)
        self._forget(queues)
        stored = await self._take_effect(self._store_end(queues, was_paused=changed > 0))
        return Applied(changed=changed, stored=stored) if changed or stored else "not-found"

    def _selected(self, target: str | None) -> list[EndpointConsumer] | Why:
        """Return the consumers that an order is for, or why there are none."""
        named = [
            each
            for each in self._consumers
            if target is None or target in {each.name, each.state.endpoint.contract.type}
        ]
        found = [each for each in named if each.counts_deliveries]
        if found:
            return found
        return "not-pausable" if named else "not-found"

    async def _take_effect(self, storing: Coroutine[Any, Any, bool | None]) -> bool | None:
        """Apply the present pauses, and store them. Do not wait for long.

        Returns:
            True if the store has accepted the order. None without a store.
        """

        async def take() -> bool | None:
            applied = asyncio.ensure_future(self._apply())
            try:
                return await storing
            finally:
                await applied
                await self._apply()  # the store's answer can change the end of a pause
                self._changed.set()

        task = asyncio.create_task(take(), name="order for consumers")
        self._effects.add(task)
        task.add_done_callback(self._effects.discard)
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(task)
        return None if self._store is None else False

    async def _store_pauses(self, pauses: Sequence[Pause], *, lasts: bool) -> bool | None:
        store = self._store
        if store is None:
            return None
        async with self._storing:
            for pause in pauses:
                kept = _without_end(pause) if lasts else pause
                try:
                    await store.pause(kept)
                except BusError as error:
                    self._warn("stored", error)
                    return False
                if self._is_latest(pause):
                    self._pauses[pause.queue] = OperatorPause(kept, is_stored=True)
        return True

    def _is_latest(self, pause: Pause) -> bool:
        known = self._pauses.get(pause.queue)
        return known is not None and known.pause.at <= pause.at

    async def _store_end(self, queues: set[str], *, was_paused: bool) -> bool | None:
        store = self._store
        if store is None:
            return None
        async with self._storing:
            self._forget(queues)  # a read of the store can have brought them back
            try:
                removed = [await store.resume(queue) for queue in sorted(queues)]
            except BusError as error:
                self._warn("removed from the store", error)
                return False
        # Another instance that obeys the same order can have removed the rows before.
        return was_paused or any(removed)

    def _forget(self, queues: set[str]) -> None:
        for queue in queues:
            self._pauses.pop(queue, None)

    def _warn(self, what: str, error: BusError) -> None:
        log.warning(
            "%s: the order for its consumers was not %s: %s. Give the order again when the store "
            "answers.",
            self._service,
            what,
            error,
            extra={"service": self._service, "why": str(error)},
        )

    # --- The stored pauses, and the ends ---

    async def _follow(self) -> None:
        """End pauses in time, and read the store once a minute."""
        loop = asyncio.get_running_loop()
        next_read = loop.time() + _jittered(READ_SECONDS)
        while True:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(next_read - loop.time(), *self._seconds_left())):
                    await self._changed.wait()
            if loop.time() >= next_read:
                next_read = loop.time() + _jittered(READ_SECONDS)
                with suppress(BusError):  # the service reports elsewhere that its store is away
                    await self._read()
            await self._apply()

    def _seconds_left(self) -> Iterator[float]:
        yield READ_SECONDS
        now = self._clock()
        for each in self._pauses.values():
            if each.pause.until is not None:
                yield max(0.0, each.pause.until - now)

    async def _read(self) -> None:
        """Read the stored pauses. A pause that the store does not know any more has ended."""
        if self._store is None:
            return
        async with self._storing:
            stored = {pause.queue: pause for pause in await self._store.pauses()}
            for queue, known in [*self._pauses.items()]:
                if known.is_stored and queue not in stored:
                    del self._pauses[queue]
            for queue, pause in stored.items():
                if queue not in self._pauses or self._is_latest(pause):
                    self._pauses[queue] = OperatorPause(pause, is_stored=True)

    async def _apply(self) -> None:
        """Pause and resume the consumers, so that they follow the present pauses."""
        async with self._applying:
            now = self._clock()
            for queue, known in [*self._pauses.items()]:
                if known.pause.until is not None and known.pause.until <= now:
                    del self._pauses[queue]
            await asyncio.gather(*map(self._apply_to, self._consumers))

    async def _apply_to(self, consumer: EndpointConsumer) -> None:
        pause = self._pauses.get(consumer.name) if consumer.counts_deliveries else None
        was_paused = consumer.operator_pause is not None
        if pause is not None:
            await consumer.hold(pause)
        elif was_paused:
            await consumer.release()
        if was_paused is not (pause is not None):
            self._log_change(consumer.name, pause)

    def _log_change(self, queue: str, pause: OperatorPause | None) -> None:
        facts: dict[str, object] = {"service": self._service, "queue": queue}
        if pause is None:
            log.info(
                "%s: the consumer of %s is not paused any more", self._service, queue, extra=facts
            )
            return
        info = pause.info()
        ends = pause.pause.until
        end = "an operator resumes it" if ends is None else utc_date_and_time(ends)
        log.warning(
            "%s: the consumer of %s is paused until %s, by the operator %s: %s",
            *(self._service, queue, end, info.by, info.reason),
            extra={**facts, "operator": info.by, "reason": info.reason, "until": info.until},
        )


def add_consumer_orders(executor: OrderExecutor, pauses: ConsumerPauses) -> None:
    """Let an executor obey the orders to pause and to resume consumers."""
    executor.add(PauseConsumers, pauses.pause)
    executor.add(ResumeConsumers, pauses.resume)


def _without_end(pause: Pause) -> Pause:
    return Pause(queue=pause.queue, by=pause.by, reason=pause.reason, at=pause.at)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.9, 1.0)  # noqa: S311 - a spread needs no secret


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ignore(_error: BaseException) -> None:
    """Do nothing, because `run_forever` has already logged the error."""
