"""The receive loop of one endpoint: handle, settle, ack."""

import asyncio
import logging
from contextvars import copy_context

from bus.messaging.backoff import backoff
from bus.messaging.context import current
from bus.messaging.criticality import lowered
from bus.messaging.debug_switch import debugging
from bus.messaging.ports.transport import Delivery
from bus.runtime.consumer_cancellation import AckHold
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.failure_log import UNEXPECTED, log_failure
from bus.runtime.inbound_message import (
    NO_ACTION,
    REQUEUE,
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
)
from bus.runtime.inbox_retry import InboxFailed
from bus.runtime.message_settler import MessageSettler
from bus.runtime.settlement_fallback import Disposition, SettlementFallback

__all__ = ["Receiver"]

log = logging.getLogger("bus.receiver")

ACK = Disposition.ACK


class Receiver:
    """Handles the deliveries of one endpoint, each in a separate task.

    A lost connection does not cancel these tasks. If the broker redelivers a message while its task
    runs, this task also settles the redelivery.
    """

    def __init__(
        self, state: EndpointState, handle: InboundHandler, settler: MessageSettler
    ) -> None:
        """Create a receiver. `handle` runs the inbound stages, and then the service activator."""
        self.state = state
        self._in_flight = state.in_flight
        self._handle = handle
        self._settler = settler
        self._fallback = SettlementFallback(settler, state.in_flight)
        # Handlers run with the context variables of the task that serves the router. Without this
        # copy, handlers would run with the variables of the task that opened the connection.
        self._context = copy_context()
        self._context.run(current.set, None)
        self._context.run(lowered.set, None)
        self._context.run(debugging.set, state.runtime.settings.debug)
        self._loop = asyncio.get_running_loop()

    def on_delivery(self, delivery: Delivery, hold: AckHold | None = None) -> None:
        """Start the handling of one delivery. `hold` delays its ack. None delays nothing."""
        message = InboundMessage(delivery, hold)
        # The task is created without the loop's task factory, which is for the tasks of handlers.
        self._in_flight.tasks[message] = asyncio.Task(
            self.receive(message), loop=self._loop, context=self._context.copy()
        )

    async def receive(self, message: InboundMessage) -> None:
        """Handle a message, settle it, and ack it. A message that cannot be settled is requeued."""
        try:
            try:
                result = await self._handle(message)  # the inbound stages, the stack, the router
            except UNEXPECTED as error:  # a bug in a stage fails only this message
                result = _fail(message, error)
            if result is NO_ACTION:
                return
            if result is REQUEUE:
                await message.requeue()
                return
            step = ACK
            if result is not SETTLED:
                message.is_settling = True
                try:
                    step = (
                        ACK if await self._settler.settle(message, result) else Disposition.REQUEUE
                    )
                except UNEXPECTED as error:  # as above
                    step = await self._fallback.settle(message, result, error)
            if step is not ACK:
                self._in_flight.remember(message, result)
                await message.requeue(counts=step is Disposition.COUNTED_REQUEUE)
            elif not await message.ack() and not result.unauthorized:
                self._in_flight.remember(message, SETTLED)
        except asyncio.CancelledError:
            await message.requeue()
            raise
        except UNEXPECTED as error:  # a bug must not leave the message unsettled
            await self._requeue_after(message, error)
        finally:
            self._in_flight.finish(message)

    async def _requeue_after(self, message: InboundMessage, error: BaseException) -> None:
        cause = error.__cause__ if isinstance(error, InboxFailed) else error
        text = "the bus failed to process the message; the message is requeued"
        log_failure(log, message.envelope, cause or error, text)
        self._in_flight.release_slot(message)  # other messages must not wait for this one
        await asyncio.sleep(1 + backoff(1))  # the broker redelivers a requeued message at once
        await message.requeue()

    # --- Stopping ---

    def stop_accepting(self) -> None:
        """Requeue the messages that have not started.

        Requests that run at most once still start, because a redelivery of such a request is
        rejected.
        """
        self._in_flight.stop()
        self._settler.stop_retrying()
        if not self.state.runs_at_most_once:
            self.state.slots.refuse_waiters()

    async def drain(self) -> None:
        """Wait until no message runs. The caller sets the time limit."""
        await self._in_flight.drain()
        await self._settler.close()

    def cancel_running(self) -> int:
        """Cancel the handling of all messages, and return the number of messages.

        The broker delivers these messages again.
        """
        return self._in_flight.cancel()


def _fail(message: InboundMessage, error: BaseException) -> HandlingResult:
    """Return the result of a message whose stage raised `error`. Raise `InboxFailed` again."""
    if isinstance(error, InboxFailed):
        raise error
    log_failure(log, message.envelope, error, "the bus failed to process the message")
    # The sender may not be authenticated yet, and a stage can fail after the handler.
    return HandlingResult(error=error, unauthorized=True, has_run=True)
