"""The service activator: it passes a message to the service's handler.

Source: Service Activator in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from bus.errors import BusError, Cancelled, Internal, member_errors
from bus.messaging.context import Context, Sender, current
from bus.messaging.criticality import criticality_of
from bus.messaging.debug_switch import exception_to_log
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_facts
from bus.messaging.failure_note import add_failure_note
from bus.messaging.handler import Handler
from bus.messaging.labels import failure_label, message_facts, message_label
from bus.messaging.supervision import is_own_cancel
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.exits import is_for_handler
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.job_reports import JobReports

__all__ = ["ServiceActivator", "ServiceStack"]

log = logging.getLogger("bus.activator")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStack:
    """The server's stack around the router, and the objects that handlers receive."""

    handler: Handler
    sender: Sender
    """The bus that handlers use to send messages."""
    state: Any = None
    """The value that the router's lifespan yielded."""


class ServiceActivator:
    """The innermost inbound handler. It sets the context, and calls the stack and the router."""

    def __init__(self, state: EndpointState, stack: ServiceStack, reports: JobReports) -> None:
        self._timeout = state.endpoint.timeout
        self._criticality = state.endpoint.contract.criticality
        self._clock = state.runtime.clock
        self._stack = stack
        self._handler = stack.handler
        self._progress_reporter = reports.progress_reporter
        self._cancellation_of = reports.cancellation_of

    async def handle(self, message: InboundMessage) -> HandlingResult:
        """Handle a message. If the handler raises an error, return the error in the result."""
        envelope = message.envelope
        stack, report = self._stack, self._progress_reporter(envelope)
        transaction = message.transaction
        context = Context(
            envelope=envelope,
            bus=stack.sender,
            state=stack.state,
            criticality=criticality_of(envelope, self._criticality),
            report=report,
            session=None if transaction is None else transaction.session,
            cancellation=(
                None if self._cancellation_of is None else self._cancellation_of(envelope)
            ),
        )
        token = current.set(context)
        try:
            reply = await self._handler(self._with_deadline(message.payload))
            return HandlingResult(reply=reply, has_run=True)
        except asyncio.CancelledError as cancelled:
            if is_own_cancel():
                raise
            return HandlingResult(error=_error_of_cancellation(cancelled), has_run=True)
        except Exception as error:  # noqa: BLE001 - every exception of a handler is a result
            add_failure_note(error, envelope)
            return HandlingResult(error=_wire_safe_error(error, envelope), has_run=True)
        except BaseException as error:  # such as `sys.exit`, or a panic in a Rust library
            if not is_for_handler(error, context):
                raise
            facts = message_facts(envelope, **failure_facts(error))
            add_failure_note(error, envelope)
            # log.exception is not used, because a traceback can show confidential values.
            log.error(  # noqa: TRY400
                "%s: a handler or middleware raised a BaseException (%s)",
                message_label(envelope),
                failure_label(facts),
                extra=facts,
                exc_info=exception_to_log(error),
            )
            return HandlingResult(error=_wire_safe_error(error, envelope), has_run=True)
        finally:
            current.reset(token)
            # A task that the handler started can continue after the handler has ended. This message
            # is the cause of all messages that the task sends. The deadline does not apply to them.
            context.deadline = None

    def _with_deadline(self, envelope: Envelope) -> Envelope:
        """Return the envelope. If the handler has a timeout, set the deadline to its end."""
        if self._timeout is None:
            return envelope
        return envelope.replace(deadline=int((self._clock() + self._timeout) * 1000))


def _error_of_cancellation(cancelled: asyncio.CancelledError) -> Cancelled:
    # A variable of `handle` with this error would be a reference cycle, because the traceback of
    # the cancellation has the frame of `handle`.
    error = Cancelled("the handler awaited something that was cancelled")
    error.__cause__ = cancelled  # it has the location
    return error


def _wire_safe_error(error: BaseException, envelope: Envelope) -> BaseException:
    """Return `error`. For a user's `BusError` that cannot be serialized, return `Internal`.

    A group that contains such an error becomes `Internal` as well.

    If a `BusError` cannot be serialized, its text or an attribute has a wrong type. The bus would
    write a dead letter with the error, but every attempt to send the error would fail.
    """
    if all(map(_can_be_sent, member_errors(error))):
        return error
    facts = message_facts(envelope, **failure_facts(error))
    log.error(
        "%s: the handler's error (%s) cannot be sent; the caller gets Internal",
        message_label(envelope),
        failure_label(facts),
        extra=facts,
    )
    internal = Internal()
    internal.__cause__ = error  # it has the location
    return internal


def _can_be_sent(error: BaseException) -> bool:
    if not isinstance(error, BusError):
        return True
    try:
        values = (str(error), error.code, error.retryable, error.maybe_executed)
        # The values of these two are checked when the reply is made.
        _ = (error.stated_executed, error.retry_after, error.origin, error.is_call_error)
        return all(map(isinstance, values, (str, str, bool, bool)))
    except (Exception, SystemExit):  # noqa: BLE001 - a user's code; the caller logs the error
        return False
