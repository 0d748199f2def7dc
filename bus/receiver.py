"""The receive loop of one endpoint: decode, call, settle; once, above the port."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from bus.context import Context, Sender, current
from bus.envelope import Envelope
from bus.errors import Cancelled, Expired, Unavailable, Undecodable
from bus.handler import Handler
from bus.recovery import backoff, is_own_cancel, place_of
from bus.router import Endpoint
from bus.settlement import Outcome, Settler
from bus.topology import Queue, Topology
from bus.transport import Delivery, Transport

__all__ = ["Receiver"]

log = logging.getLogger("bus.receiver")

MOST_KEPT = 1_000
"""Outcomes remembered for redeliveries; beyond it the oldest are forgotten. Not more than the prefetch can be under way at a time."""

Key = tuple[str, int]
"""A message's id and attempt: a retry is no redelivery."""


class Receiver:
    """Takes the deliveries of one endpoint's queue, each in a task of its own: losing the connection cancels no work.

    A redelivery of what still runs here joins it: the work, when it ends, acks every delivery of its message.
    What ended here while its ack could not be written is remembered, and not run again.
    """

    def __init__(  # noqa: PLR0913 - what a message meets on its way
        self,
        endpoint: Endpoint,
        queue: Queue,
        topology: Topology,
        handler: Handler,
        transport: Transport,
        *,
        service: str,
        sender: Sender,
        state: Any,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.endpoint = endpoint
        self.queue = queue
        self.topology = topology
        # A request that may not run twice is acked when its handler starts: then the broker never delivers it again.
        self._once = endpoint.contract.kind == "request" and not endpoint.contract.idempotent
        self._handler = handler
        self._sender = sender
        self._state = state
        self._clock = clock
        self._settler = Settler(endpoint, topology, transport, service=service, clock=clock)
        # Handlers see the context variables of who serves, and not those of who happened to open the connection.
        self._surroundings = copy_context()
        self._surroundings.run(current.set, None)
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._open: dict[Key, list[Delivery]] = {}
        self._ended: OrderedDict[Key, Outcome] = OrderedDict()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._stopping = False

    def take(self, delivery: Delivery) -> None:
        """One delivery, from the transport."""
        life = self._receive(delivery, delivery.envelope)
        self._tasks[id(delivery)] = self._loop.create_task(life, context=self._surroundings.copy())

    async def _receive(self, delivery: Delivery, envelope: Envelope) -> None:
        """A message's life here."""
        key = (envelope.id, envelope.attempt)
        if key in self._open:
            self._open[key].append(delivery)
            del self._tasks[id(delivery)]
            return
        self._open[key] = [delivery]
        try:
            if await self._turn():
                await self._run(key, delivery, envelope)
            else:
                await self._requeue(key)
        except asyncio.CancelledError:
            await self._requeue(key)  # abandoned: now another may have it
            raise
        except Exception as error:  # noqa: BLE001 - a fault of the bus must not leave a message neither acked nor handed back
            facts = {"queue": envelope.queue, "message_id": envelope.id, "error": type(error).__name__, "where": place_of(error)}
            log.error("a fault of the bus; the message goes back to its queue", extra=facts)  # noqa: TRY400 - a traceback's text shows values
            await asyncio.sleep(1 + backoff(1))  # it comes again at once
            await self._requeue(key)
        finally:
            del self._open[key], self._tasks[id(delivery)]

    async def _turn(self) -> bool:
        """Wait for a place among those that run. False where the service stops first."""
        if self._goes_back():
            return False
        if self._slots.locked():
            return await self._next_turn()
        await self._slots.acquire()  # at once
        return True

    async def _next_turn(self) -> bool:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("deliveries are received in tasks")
        self._waiting.add(task)
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            if not self._goes_back():
                raise
            return False
        finally:
            self._waiting.discard(task)
        if self._goes_back():
            self._slots.release()
            return False
        return True

    def _goes_back(self) -> bool:
        """Whether what has not begun goes back now. A request that may run once only stays: its redelivery would be refused."""
        return self._stopping and not self._once

    async def _run(self, key: Key, delivery: Delivery, envelope: Envelope) -> None:
        try:
            outcome = self._ended.pop(key, None) or await self._attempt(key, delivery, envelope)
            if outcome is not None:
                await self._conclude(key, envelope, outcome)
        finally:
            self._slots.release()

    async def _attempt(self, key: Key, delivery: Delivery, envelope: Envelope) -> Outcome | None:
        """Run the handler once. None where the message is no longer ours, and comes again."""
        if self._once:
            if delivery.redelivered:
                # Another process may have begun it: the ack of a beginning can be lost with its connection.
                text = f"{envelope.type}: it was delivered twice, and may run once only"
                return Outcome(error=Unavailable(text, maybe_executed=True))
            if not await self._ack(key):
                return None
        return await self._call(envelope)

    async def _call(self, envelope: Envelope) -> Outcome:
        report = self._settler.reporter(envelope)
        context = Context(envelope=envelope, bus=self._sender, state=self._state, report=report)
        token = current.set(context)
        try:
            return Outcome(reply=await self._handler(self._admitted(envelope)))
        except asyncio.CancelledError:
            if is_own_cancel():
                raise
            return Outcome(error=Cancelled("the handler awaited something that was cancelled"))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome, and settled as one
            return Outcome(error=error)
        finally:
            current.reset(token)

    def _admitted(self, envelope: Envelope) -> Envelope:
        """The envelope, with the deadline that the handler's own timeout sets."""
        if envelope.fault:
            log.warning("undecodable message", extra={"queue": envelope.queue, "fault": envelope.fault})
            raise Undecodable(envelope.fault)
        now = self._clock() * 1000
        if envelope.expires is not None and envelope.expires <= now:
            raise Expired(f"{envelope.type}: it lay longer than it was worth handling")
        if self.endpoint.timeout is None:
            return envelope
        return envelope.evolve(deadline=int(now + self.endpoint.timeout * 1000))

    async def _conclude(self, key: Key, envelope: Envelope, outcome: Outcome) -> None:
        """Do what follows, then ack. What cannot be done goes back to the broker, and its outcome is kept for when it returns."""
        if not outcome.concluded and not await self._settler.conclude(envelope, outcome, self._open[key][-1]):
            self._keep(key, outcome)
            await self._requeue(key)
        elif not await self._ack(key) or self._once:
            self._keep(key, Outcome(concluded=True))

    async def _ack(self, key: Key) -> bool:
        """Ack every delivery of the message; whether one of them was alive."""
        alive = False
        for delivery in self._open[key]:  # may grow meanwhile
            alive |= await delivery.ack()
        return alive

    async def _requeue(self, key: Key) -> None:
        for delivery in self._open[key]:
            await delivery.requeue()

    def _keep(self, key: Key, outcome: Outcome) -> None:
        self._ended[key] = outcome
        if len(self._ended) > MOST_KEPT:
            self._ended.popitem(last=False)

    def hand_back(self) -> None:
        """Give back what has not started."""
        self._stopping = True
        if self._goes_back():
            for task in self._waiting:
                task.cancel()

    async def finish(self) -> None:
        """Returns when nothing runs any more. Callers set the limit."""
        while self._tasks:
            await asyncio.wait([*self._tasks.values()])
        await self._settler.close()

    def abandon(self) -> int:
        """Cancel what still runs, and how many that were; the broker delivers it again."""
        for task in self._tasks.values():
            task.cancel()
        return len(self._tasks)
