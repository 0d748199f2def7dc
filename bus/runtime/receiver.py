"""The receive loop of one endpoint: decode, call, settle; once, above the port."""

import asyncio
import logging
from collections import OrderedDict, deque
from contextvars import copy_context
from functools import partial

from bus.errors import ProcessLost, Unavailable, error_location
from bus.messaging.backoff import backoff
from bus.messaging.context import current
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import REPLAYS
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.model import Queue, Topology
from bus.runtime.poison_isolation import (
    POISON_AFTER_DELIVERIES,
    PoisonCandidate,
    PoisonIsolation,
    SerialRunner,
    delivery_count,
)
from bus.runtime.router import Endpoint
from bus.runtime.service_activator import ServiceActivator
from bus.runtime.settler import HandlingResult, Settler

__all__ = ["Receiver"]

log = logging.getLogger("bus.receiver")

MAX_REMEMBERED_RESULTS = 1_000
"""Outcomes remembered for redeliveries; beyond it the oldest are forgotten. Not more than the prefetch can be under way at a time."""

Key = tuple[str, str, int, str | int, int]
"""Sender, id, attempt and replays: neither a retry nor a replay is a redelivery. The last: of others with the same id, which."""


class Receiver:
    """Takes the deliveries of one endpoint's queue, each in a task of its own: losing the connection cancels no work.

    A redelivery of what still runs here joins it: the work, when it ends, acks every delivery of its message.
    What ended here while its ack could not be written is remembered, and not run again.
    """

    def __init__(  # noqa: PLR0913 - what a message meets here
        self,
        endpoint: Endpoint,
        queue: Queue,
        topology: Topology,
        *,
        activator: ServiceActivator,
        settler: Settler,
        quarantine: PoisonIsolation,
        delivery_limit: int,
        consumer_timeout: float | None = None,
    ) -> None:
        """`delivery_limit` is how many deliveries of one message may be lost with their process; then it is given up.

        `patience`: seconds for which a message may be held here; None says nothing of it.
        """
        self.endpoint = endpoint
        self.queue = queue
        self.topology = topology
        # A request that may not run twice is acked when its handler starts: then the broker never delivers it again.
        self._once = endpoint.contract.kind == "request" and not endpoint.contract.idempotent
        self.counted = queue.arguments.get("x-queue-type") == "quorum" and not self._once
        """Whether the broker counts how often a message was lost, and somebody minds."""
        self._limit = min(
            delivery_limit, int(queue.arguments.get("x-delivery-limit", delivery_limit))
        )
        self.consumer_timeout = consumer_timeout
        self._quarantine = quarantine
        self._single_file = SerialRunner()
        self._activator = activator
        self._settler = settler
        # Handlers see the context variables of who serves, and not those of who happened to open the connection.
        self._surroundings = copy_context()
        self._surroundings.run(current.set, None)
        self._loop = asyncio.get_running_loop()
        self._free = endpoint.concurrency
        self._open: dict[Key, list[Delivery]] = {}
        self._ended: OrderedDict[Key, HandlingResult] = OrderedDict()
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._stopping = False
        self._strangers = 0

    def on_delivery(self, delivery: Delivery) -> None:
        """One delivery, from the transport."""
        envelope = delivery.envelope
        key: Key = (
            envelope.source,
            envelope.id,
            envelope.attempt,
            envelope.headers.get(REPLAYS, 0),
            0,
        )
        deliveries = self._open.get(key)
        if deliveries is not None:
            if self._activator.is_same_message(deliveries[0].envelope, envelope):
                deliveries.append(delivery)
                return
            self._strangers += 1
            key = (*key[:4], self._strangers)
        deliveries = self._open[key] = [delivery]
        if delivery.redelivered and self._waits(key, envelope, delivery):
            return
        life = self._receive(key, envelope, deliveries)
        self._tasks[key] = self._loop.create_task(life, context=self._surroundings.copy())

    def _waits(self, key: Key, envelope: Envelope, delivery: Delivery) -> bool:
        """Whether what was delivered before, here or elsewhere, is run later, without company. What was lost too often ends at once."""
        if self._once or key in self._ended:
            return False
        losses, run = (
            delivery_count(delivery) if self.counted else None,
            partial(self._run_alone, key),
        )
        if losses is None:
            self._single_file.add(run)
            return True
        if losses >= self._limit:
            text = f"{envelope.type}: its process ended, or lost its connection, {losses} times before it was done"
            self._keep(key, HandlingResult(error=ProcessLost(text)))
        elif losses >= POISON_AFTER_DELIVERIES:
            self._quarantine.add(
                PoisonCandidate(queue=self.queue.name, id=envelope.id, losses=losses, run=run)
            )
            return True
        return False

    async def _run_alone(self, key: Key) -> None:
        if deliveries := self._open.get(key):
            life = self._receive(key, deliveries[0].envelope, deliveries)
            self._tasks[key] = task = self._loop.create_task(
                life, context=self._surroundings.copy()
            )
            await asyncio.wait([task])

    @property
    def has_deferred(self) -> bool:
        """Whether something is here that has not begun, since it is to run alone."""
        return len(self._open) > len(self._tasks)

    def running(self) -> list[asyncio.Task[None]]:
        """What has begun, or waits for a place, and has not ended."""
        return [task for task in self._tasks.values() if not task.done()]

    async def _receive(self, key: Key, envelope: Envelope, deliveries: list[Delivery]) -> None:
        """A message's life here. `deliveries` may grow meanwhile."""
        try:
            if await self._turn() if self._goes_back() or not self._free else self._enter():
                try:
                    await self._run(key, envelope, deliveries)
                finally:
                    self._leave()
            else:
                await _requeue(deliveries)
        except asyncio.CancelledError:
            await _requeue(deliveries)  # abandoned: now another may have it
            raise
        except Exception as error:  # noqa: BLE001 - a fault of the bus must not leave a message neither acked nor handed back
            facts = {
                "queue": envelope.queue,
                "message_id": envelope.id,
                "error": type(error).__name__,
                "where": error_location(error),
            }
            log.error("a fault of the bus; the message goes back to its queue", extra=facts)  # noqa: TRY400 - a traceback's text shows values
            await asyncio.sleep(1 + backoff(1))  # it comes again at once
            await _requeue(deliveries)
        finally:
            del self._open[key], self._tasks[key]

    # --- a place among those that run ------------------------------------------------------------------------------

    def _enter(self) -> bool:
        self._free -= 1
        return True

    def _leave(self) -> None:
        """Give the place to who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._free += 1

    async def _turn(self) -> bool:
        """Wait for a place. False where the service stops first."""
        if self._goes_back():
            return False
        turn: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            if not await turn:
                return False
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                self._leave()
            raise
        if self._goes_back():
            self._leave()
            return False
        return True

    def _goes_back(self) -> bool:
        """Whether what has not begun goes back now. A request that may run once only stays: its redelivery would be refused."""
        return self._stopping and not self._once

    # --- one attempt -----------------------------------------------------------------------------------------------

    async def _run(self, key: Key, envelope: Envelope, deliveries: list[Delivery]) -> None:
        """Call the handler once, do what follows, then ack. What cannot be done goes back, and its outcome is kept for when it returns."""
        # Before all else: who is not who he says gets no answer that is remembered, and stands in nobody's way.
        refusal = self._activator.refusal(envelope)
        if refusal is not None:
            outcome: HandlingResult | None = await self._activator.reject(envelope, refusal)
        else:
            outcome = self._ended.pop(key, None) if self._ended else None
        if outcome is None:
            if self._once:
                if deliveries[0].redelivered:
                    outcome = self._delivered_twice(envelope)
                elif not await _ack(deliveries):
                    return  # no longer ours: it comes again
                else:
                    outcome = await self._activator.handle(
                        envelope, self._settler.progress_reporter(envelope)
                    )
            else:
                outcome = await self._activator.handle_once(
                    envelope, self._settler.progress_reporter(envelope)
                )
        if not outcome.settled and not await self._settler.settle(
            envelope, outcome, deliveries[-1]
        ):
            self._keep(key, outcome)
            await _requeue(deliveries)
        elif not await _ack(deliveries):
            self._keep(key, HandlingResult(settled=True, unauthorized=outcome.unauthorized))

    def _delivered_twice(self, envelope: Envelope) -> HandlingResult:
        """Another process may have begun it: the ack of a beginning can be lost with its connection."""
        text = f"{envelope.type}: it was delivered twice, and may run once only"
        return HandlingResult(error=Unavailable(text, maybe_executed=True))

    def _keep(self, key: Key, outcome: HandlingResult) -> None:
        if outcome.unauthorized:
            return  # it may be let in the next time; and the copy that waits for its key has the same id and attempt
        self._ended[key] = outcome
        if len(self._ended) > MAX_REMEMBERED_RESULTS:
            self._ended.popitem(last=False)

    # --- the stop --------------------------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Give back what has not started."""
        self._stopping = True
        self._settler.stop_retrying()
        if self._goes_back():
            for turn in self._waiting:
                if not turn.done():
                    turn.set_result(False)
            self._waiting.clear()

    async def drain(self) -> None:
        """Returns when nothing runs any more. Callers set the limit."""
        while running := self.running():
            await asyncio.wait(running)
        for deliveries in self._open.values():
            await _requeue(deliveries)  # cancelled before its task could begin
        self._open.clear()
        self._tasks.clear()
        await self._settler.close()

    def cancel_running(self) -> int:
        """Cancel what still runs, and how many that were; the broker delivers it again."""
        for task in self._tasks.values():
            task.cancel()
        return len(self._tasks)


async def _ack(deliveries: list[Delivery]) -> bool:
    """Ack every delivery of a message; whether one of them was alive."""
    alive = False
    for delivery in deliveries:  # may grow meanwhile
        alive |= await delivery.ack()
    return alive


async def _requeue(deliveries: list[Delivery]) -> None:
    for delivery in deliveries:
        await delivery.requeue()
