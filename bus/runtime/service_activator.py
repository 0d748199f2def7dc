"""Service Activator (Hohpe and Woolf, "Enterprise Integration Patterns", 2003): lets a message in, and calls the service with it.

In this order: who sent it is proven, what was handled before has no second effect, what lay too long is refused, the payload is opened.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from bus.errors import (
    BusError,
    Cancelled,
    Expired,
    Internal,
    Undecodable,
    UnknownKey,
    error_location,
)
from bus.messaging.backoff import backoff
from bus.messaging.context import Context, Sender, current
from bus.messaging.envelope import Envelope, Progress
from bus.messaging.fault_record import PARKED
from bus.messaging.handler import Handler
from bus.messaging.ports.inbox import HandledMessage, Inbox, MessageKey
from bus.messaging.supervision import is_own_cancel
from bus.runtime.router import Endpoint
from bus.runtime.settler import HandlingResult
from bus.security.encryption import NO_ENCRYPTION, PayloadCipher
from bus.security.endpoint_guard import EndpointGuard

__all__ = ["ServiceActivator"]

log = logging.getLogger("bus.activator")

Report = Callable[[Progress], Awaitable[None]]
T = TypeVar("T")

INBOX_RETRY_SECONDS = 300.0
"""Seconds for which a message waits for an inbox that fails; with its handler's own time below the broker's 30 minutes for an ack."""


class ServiceActivator:
    """One endpoint's: from a message to the outcome of one attempt. It knows of no delivery, and settles nothing."""

    def __init__(  # noqa: PLR0913 - what a message meets on its way in
        self,
        endpoint: Endpoint,
        handler: Handler,
        *,
        sender: Sender,
        state: Any,
        inbox: Inbox,
        gate: EndpointGuard | None = None,
        cipher: PayloadCipher = NO_ENCRYPTION,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`gate` holds messages to what proves them; None takes them as they come. `cipher` opens their payloads."""
        self._endpoint = endpoint
        self._handler = handler
        self._sender = sender
        self._state = state
        self._inbox = inbox
        self._gate = gate
        self._cipher = cipher
        self._clock = clock
        self.refusal: Callable[[Envelope], BusError | None] = (
            gate.authorize if gate is not None else _none
        )
        """Why a message must not be handled; None where it may. No method, since every message passes it: one call less."""

    def is_same_message(self, first: Envelope, second: Envelope) -> bool:
        """Whether the second is the first once more, and not only in what anyone could have written on it.

        A copy that its sender made when it was in doubt is signed and encrypted anew: then both have to be what they say.
        """
        if all(getattr(first, name) == getattr(second, name) for name in IDENTITY_FIELDS):
            return True
        if (first.source, first.type) != (second.source, second.type):
            return False
        return self.refusal(first) is None and self.refusal(second) is None

    async def reject(self, envelope: Envelope, refusal: BusError) -> HandlingResult | None:
        """What becomes of what is not let in; None where it is after all, by a key that was fetched just now."""
        if isinstance(refusal, UnknownKey) and self._gate is not None:
            if envelope.role == "request" or PARKED in envelope.headers:
                again = await self._gate.recheck_with_new_keys(envelope)
                return None if again is None else HandlingResult(error=again, unauthorized=True)
            self._gate.refresh_keys()
        return HandlingResult(error=refusal, unauthorized=True)

    async def handle_once(self, envelope: Envelope, report: Report | None) -> HandlingResult:
        """What is remembered of the message, or comes of handling it now. Only success is remembered: a dead letter may be replayed."""
        key = MessageKey(self._endpoint.queue, envelope.source, envelope.id)
        try:
            known = await self._inbox.find(key)
        except Exception as error:  # noqa: BLE001 - a user's store, which raises what it likes
            known = await self._retry_inbox(partial(self._inbox.find, key), envelope, error)
        if known is not None:
            log.debug(
                "a duplicate; it was handled before",
                extra={"queue": envelope.queue, "message_id": envelope.id},
            )
            return HandlingResult(reply=known.reply, settled=known.reply is None)
        outcome = await self.handle(envelope, report)
        if outcome.error is None:
            # A job's result is not told yet: where this process ends before it is, only who remembers it can.
            waited_for = envelope.role == "request" or envelope.reply_to is not None
            handled = HandledMessage(reply=outcome.reply if waited_for else None)
            try:
                await self._inbox.add(key, handled)
            except Exception as error:  # noqa: BLE001 - as above
                await self._retry_inbox(partial(self._inbox.add, key, handled), envelope, error)
        return outcome

    async def _retry_inbox(
        self, ask: Callable[[], Awaitable[T]], envelope: Envelope, error: Exception
    ) -> T:
        """The store's answer, once it is back. A message that went back meanwhile would count as lost each time, and be given up."""
        facts = {
            "queue": envelope.queue,
            "message_id": envelope.id,
            "error": type(error).__name__,
            "where": error_location(error),
        }
        log.error("the store of what was handled fails; the message waits for it", extra=facts)
        loop = asyncio.get_running_loop()
        ends, attempt = loop.time() + INBOX_RETRY_SECONDS, 0
        while True:
            attempt += 1
            await asyncio.sleep(backoff(attempt))
            try:
                return await ask()
            except Exception:  # as above: it is raised in the end
                if loop.time() > ends:
                    raise

    async def handle(self, envelope: Envelope, report: Report | None) -> HandlingResult:
        """Handle it. Whatever its handler raises is an outcome; `report` tells how far it is."""
        context = Context(envelope=envelope, bus=self._sender, state=self._state, report=report)
        token = current.set(context)
        try:
            return HandlingResult(reply=await self._handler(self._prepare(envelope)))
        except asyncio.CancelledError:
            if is_own_cancel():
                raise
            return HandlingResult(
                error=Cancelled("the handler awaited something that was cancelled")
            )
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an outcome, and settled as one
            return HandlingResult(error=_wire_safe_error(error, envelope))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - so is a panic of a library in Rust, and a group with one in it
            facts = {
                "queue": envelope.queue,
                "message_id": envelope.id,
                "error": type(error).__name__,
                "where": error_location(error),
            }
            log.error("a handler failed with what is no Exception", extra=facts)  # noqa: TRY400 - a traceback's text shows values
            return HandlingResult(error=error)
        finally:
            current.reset(token)
            context.deadline = (
                None  # a task that outlives the handling has its cause, and no longer its deadline
            )

    def _prepare(self, envelope: Envelope) -> Envelope:
        """The envelope with its payload, and with the deadline that the handler's own timeout sets."""
        if envelope.fault:
            log.warning(
                "undecodable message", extra={"queue": envelope.queue, "fault": envelope.fault}
            )
            raise Undecodable(envelope.fault)
        now = self._clock() * 1000
        if envelope.expires is not None and envelope.expires <= now:
            raise Expired(f"{envelope.type}: it lay longer than it was worth handling")
        envelope = self._cipher.decrypt(envelope)
        if self._endpoint.timeout is None:
            return envelope
        return envelope.replace(deadline=int(now + self._endpoint.timeout * 1000))


IDENTITY_FIELDS = (
    *("source", "type", "body", "proof", "authorization", "reply_to"),
    *("correlation_id", "in_reply_to", "expires", "expiry_override", "headers", "fault"),
)
"""All by which one of two could be refused that the other is not."""


def _wire_safe_error(error: Exception, envelope: Envelope) -> Exception:
    """`error`, or `Internal` for one of a user's that cannot be told: each attempt to do so would fail, after its dead letter was made."""
    if not isinstance(error, BusError):
        return error
    try:
        if all(
            map(
                isinstance,
                (str(error), error.code, error.retryable, error.maybe_executed),
                (str, str, bool, bool),
            )
        ):
            return error
    except Exception:  # noqa: BLE001, S110 - a user's code; what follows says it
        pass
    log.error(
        "an error of a handler cannot be told",
        extra={"message_id": envelope.id, "error": type(error).__name__},
    )
    return Internal()


def _none(_envelope: Envelope) -> BusError | None:
    """Nothing is refused."""
    return None
