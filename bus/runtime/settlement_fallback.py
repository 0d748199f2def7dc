"""Settlement fallback: a settlement that fails unexpectedly ends, and loses no message."""

import asyncio
import logging
from enum import Enum
from functools import partial

from bus.messaging.backoff import backoff
from bus.runtime.copy_sender import PERMANENT_ERRORS
from bus.runtime.failure_log import UNEXPECTED, log_failure
from bus.runtime.in_flight import InFlight
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.message_settler import MessageSettler

__all__ = ["MAX_SETTLE_TRIES", "Disposition", "SettlementFallback"]

log = logging.getLogger("bus.settlement")

MAX_SETTLE_TRIES = 3
"""Maximum number of tries to settle an event or job if each try ends with an unexpected exception.

Such an exception is a bug, or an error of a transport or of a signer that the bus does not know.
"""


class Disposition(Enum):
    """Step of the receiver after a settlement."""

    ACK = "ack"
    REQUEUE = "requeue"
    """Requeue the message. The broker did not confirm a copy, or the service is stopping."""
    COUNTED_REQUEUE = "counted requeue"
    """Requeue the message, and count the requeue toward the queue's delivery limit.

    This process could not even dead-letter the message. After enough requeues the broker does it.
    """


class SettlementFallback:
    """Ends the settlements of one endpoint that have failed with an unexpected exception.

    An event or job is settled again, `MAX_SETTLE_TRIES` times in all, and is then dead-lettered. A
    request is answered with an error. The handler does not run again.
    """

    def __init__(self, settler: MessageSettler, in_flight: InFlight) -> None:
        self._settler = settler
        self._in_flight = in_flight

    async def settle(
        self, message: InboundMessage, result: HandlingResult, error: BaseException
    ) -> Disposition:
        """Settle a message after `Settler.settle` has raised `error`. Raise no exception."""
        self._in_flight.release_slot(message)  # other messages must not wait for this one
        if message.envelope.role == "request":
            return await self._abandon_request(message, result, error)
        return await self._settle_again(message, result, error)

    async def _abandon_request(
        self, message: InboundMessage, result: HandlingResult, error: BaseException
    ) -> Disposition:
        """Answer with an error. If this fails too, the caller's deadline ends the call."""
        log_failure(log, message.envelope, error, "the reply to the request failed")
        try:
            await self._settler.abandon(message, result, error)
        except UNEXPECTED as last:  # a bug must neither lose a message nor repeat it
            log_failure(log, message.envelope, last, "the error reply failed as well")
        return Disposition.ACK

    async def _settle_again(
        self, message: InboundMessage, result: HandlingResult, error: BaseException
    ) -> Disposition:
        for attempt in range(1, MAX_SETTLE_TRIES + 1):
            if isinstance(error, PERMANENT_ERRORS):
                break
            log_failure(log, message.envelope, error, "the settlement of the message failed")
            if not await self._settler.wait_before_retry(attempt):
                return Disposition.REQUEUE
            try:
                # After the last try the message is dead-lettered, even if it could be retried.
                settle = partial(self._settler.settle, message, result)
                if attempt == MAX_SETTLE_TRIES:
                    settle = partial(self._settler.abandon, message, result, error)
                return _disposition(done=await settle())
            except UNEXPECTED as again:  # as above
                error = again
        if not isinstance(error, PERMANENT_ERRORS):
            log_failure(log, message.envelope, error, "the message could not be dead-lettered")
        await asyncio.sleep(1 + backoff(1))  # the broker redelivers a requeued message at once
        return Disposition.COUNTED_REQUEUE


def _disposition(*, done: bool) -> Disposition:
    return Disposition.ACK if done else Disposition.REQUEUE
