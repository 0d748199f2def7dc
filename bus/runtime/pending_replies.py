"""The calls that wait for a reply, and the job handles that wait for updates."""

import asyncio
from collections.abc import Sequence
from typing import cast
from weakref import WeakSet, WeakValueDictionary

from bus.contracts.contract import Message
from bus.errors import BusError, ConnectionLost, DeadlineExceeded, NotServed, Origin
from bus.messaging.call_limits import CallLimits
from bus.messaging.envelope import Envelope, is_final
from bus.messaging.error_state import mark_as_broker_error
from bus.messaging.instruments import CONNECTIONS_LOST
from bus.messaging.ports.meter import NO_METER, Meter
from bus.messaging.timers import SharedTimer
from bus.runtime.job_handle import PendingJob, log_unknown_type
from bus.runtime.pending_request import PendingRequest, R
from bus.runtime.reply_timeouts import describe_timeout

__all__ = ["PendingReplies"]


class PendingReplies:
    """The pending calls and jobs of one client, by message id.

    This object is the transport's listener for returned messages, failed publishes and lost
    connections.
    """

    def __init__(self, meter: Meter = NO_METER) -> None:
        """Create an object without calls. `meter` counts the lost connections."""
        self._meter = meter
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop
        self._deadlines = SharedTimer()
        self._calls: dict[str, PendingCall] = {}
        self._jobs: WeakValueDictionary[str, PendingJob[Message | None]] = WeakValueDictionary()
        self._asking: WeakSet[PendingJob[Message | None]] = WeakSet()
        """Handles that receive no pushed updates, because they did not submit their job."""
        self.late = 0
        """The number of replies and updates that no call or job waited for."""
        self.undeliverable = 0
        """The number of this service's replies that the broker returned.

        The broker returns a reply if the reply queue of the caller no longer exists.
        """

    def start(self) -> None:
        """Store the running event loop. The deadlines of all later calls use this loop."""
        self._loop = asyncio.get_running_loop()
        # A monitoring system sees no increase in a series that begins with its first loss.
        self._meter.count(CONNECTIONS_LOST, (), 0)

    def register(
        self,
        message_id: str,
        seconds: float,
        type_: str,
        token: str | None = None,
        limits: CallLimits | None = None,
    ) -> asyncio.Future[Envelope]:
        """Return a future for the reply to a request. Call `discard` when the call has ended.

        Several copies of a request can be in flight at the same time. Each copy is a call, and one
        reply ends one call: the oldest that has no reply.

        Args:
            message_id: The id of the request.
            seconds: Seconds after which the future fails with `DeadlineExceeded`.
            type_: The message type of the request.
            token: The token of the request. An error reply that refers to another token is
                rejected.
            limits: The limits of the request. The error of the deadline names the setting.
        """
        loop = self._loop
        future: asyncio.Future[Envelope] = loop.create_future()
        call = PendingCall(future, type_, token, seconds, limits)
        first = self._calls.setdefault(message_id, call)
        if first is not call:
            first.add_copy(call)
        self._deadlines.add(loop, future, loop.time() + seconds, call.on_deadline)
        return future

    def is_waiting(self) -> bool:
        """Return True if a request waits for its reply."""
        return bool(self._calls)

    def mark_sent(self, message_id: str) -> None:
        """Record that a registered request was sent, so that it waits only for its reply now."""
        call = self._calls.get(message_id)
        if call is not None:
            call.is_sent = True

    def is_sent(self, message_id: str) -> bool:
        """Return True if a request was sent and still waits for its reply."""
        call = self._calls.get(message_id)
        return call is not None and call.is_sent and not call.answer.done()

    def limit_wait(self, future: asyncio.Future[Envelope], seconds: float) -> None:
        """Let a registered call fail after `seconds` from now, if its deadline is later."""
        self._deadlines.advance(self._loop, future, self._loop.time() + seconds)

    def discard(self, message_id: str, future: asyncio.Future[Envelope]) -> None:
        """Remove a call that has ended with a reply, an error or a cancellation."""
        call = self._calls.pop(message_id)
        if call.copies:
            others = [each for each in (call, *call.copies) if each.answer is not future]
            self._calls[message_id] = others[0]
            others[0].copies = others[1:]
        self._deadlines.discard(self._loop, future)
        if not future.cancel() and not future.cancelled():
            future.exception()  # asyncio logs an exception that is never retrieved

    def track_job(self, handle: "PendingJob[R]") -> None:
        """Start to pass the updates of a job to its handle.

        The bus keeps only a weak reference to the handle. If the submitter drops the handle, later
        updates of the job are counted as late.
        """
        self._jobs[handle.id] = cast("PendingJob[Message | None]", handle)

    def track_asking(self, handle: "PendingJob[R]") -> None:
        """Close a handle that only asks about its job when the bus is closed."""
        self._asking.add(cast("PendingJob[Message | None]", handle))

    def record_job_sent(self, job: Envelope) -> None:
        """Add the proof of a sent job to its handle. Each attempt to send has a new proof."""
        handle = self._jobs.get(job.id)
        if handle is not None and job.proof is not None:
            handle.request.proofs = (*handle.request.proofs, job.proof)

    def dispatch(self, envelope: Envelope) -> None:
        """Pass a reply to its pending call, or an update to its job handle.

        If the call or handle does not exist, count the reply or update as late. A reply that does
        not end its call is logged and dropped.
        """
        target = envelope.in_reply_to or ""
        call = self._calls.get(target)
        if call is not None and call.copies:
            call = self._find_open(target)
        if call is not None and not call.answer.done():
            if is_final(envelope.type):
                call.answer.set_result(envelope)
            else:
                log_unknown_type(envelope)
        elif (handle := self._jobs.get(target)) is not None:
            handle.on_update(envelope)
        else:
            self.late += 1

    def _find_open(self, message_id: str) -> "PendingCall | None":
        """Return the oldest call of a request that has no reply and no error yet."""
        call = self._calls.get(message_id)
        if call is None or not call.answer.done():
            return call
        return next((each for each in call.copies if not each.answer.done()), None)

    def find_request(self, envelope: Envelope) -> "PendingRequest | None":
        """Return the pending request or job to which a reply refers, or None if there is none."""
        target = envelope.in_reply_to or ""
        call = self._calls.get(target)
        if call is not None:
            return call
        handle = self._jobs.get(target)
        return None if handle is None else handle.request

    def record_rejected_reply(self, envelope: Envelope, why: str) -> None:
        """Record in the pending call or job why a reply or update was rejected.

        The call or job continues to wait, because the genuine reply may still arrive. If no valid
        reply arrives, the `DeadlineExceeded` of the caller or submitter includes the reason.

        Args:
            envelope: The rejected reply or update.
            why: The reason for the rejection.
        """
        target = envelope.in_reply_to or ""
        call = self._calls.get(target)
        if call is not None:
            for each in (call, *call.copies):
                each.rejection = why
        elif (handle := self._jobs.get(target)) is not None:
            handle.request.rejection = why

    def on_return(self, message_id: str, reason: str) -> None:
        """Fail the pending call of a returned request.

        If the message id has no pending call, count the message as an undeliverable reply.
        """
        call = self._find_open(message_id)
        if call is not None:
            call.answer.set_exception(
                NotServed(
                    f"{call.type}: no service serves it ({reason}). "
                    "Start the service in a version that has a handler for it."
                )
            )
        elif message_id not in self._calls:
            self.undeliverable += 1

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """Fail the pending call of a request that the broker refused.

        The call also fails if the broker dropped the request when a channel was closed.
        """
        call = self._find_open(message_id)
        if call is not None:
            mark_as_broker_error(error)
            call.answer.set_exception(error)

    def on_connection_lost(self) -> None:
        """Fail every pending call, because its reply queue was deleted with the connection."""
        if not self._is_closing:
            self._meter.count(CONNECTIONS_LOST, ())
        self._fail_calls("the connection to the broker was lost")
        for handle in self._handles():
            handle.on_connection_lost()

    def _handles(self) -> "list[PendingJob[Message | None]]":
        return [*self._jobs.values(), *self._asking]

    def _fail_calls(self, reason: str, origin: Origin = "broker") -> None:
        for first in self._calls.values():
            for call in (first, *first.copies):
                if not call.answer.done():
                    error = ConnectionLost(
                        f"{call.type}: {reason} before the reply arrived. The service may have "
                        "handled the request.",
                        maybe_executed=True,
                    )
                    error.origin = origin
                    call.answer.set_exception(error)

    def begin_close(self) -> None:
        """Do not count the connection as lost, because the bus closes it."""
        self._is_closing = True

    def close(self) -> None:
        """Fail every pending call and job handle, because the bus is closed."""
        self._fail_calls("the bus was closed", "local")
        for handle in self._handles():
            handle.close()


class PendingCall(PendingRequest):
    """A sent request, with a future for its reply."""

    __slots__ = ("answer", "copies", "is_sent", "limits", "seconds")

    def __init__(
        self,
        answer: "asyncio.Future[Envelope]",
        type_: str,
        token: str | None,
        seconds: float,
        limits: CallLimits | None = None,
    ) -> None:
        self.answer = answer
        self.limits = limits
        self.seconds = seconds
        """Seconds that the call waits for its reply."""
        self.type = type_
        self.is_job = False
        self.proofs = () if token is None else (token,)
        self.rejection = None
        self.is_sent = False
        """True if the transport has taken the request."""
        self.copies: Sequence[PendingCall] = ()
        """Later calls with the same message id, in order."""

    def add_copy(self, copy: "PendingCall") -> None:
        """Add a later call with the same message id.

        A reply can refer to any copy of the request, so each call has the tokens of all copies.
        """
        self.copies = [*self.copies, copy]
        proofs = (*self.proofs, *(each for each in copy.proofs if each not in self.proofs))
        self.proofs = proofs
        for each in self.copies:
            each.proofs = proofs

    def on_deadline(self) -> None:
        """Fail the call if it has no reply yet."""
        if not self.answer.done():
            text = describe_timeout(self, self.seconds, self.limits)
            error = DeadlineExceeded(text, maybe_executed=True)
            error.origin = "service"
            self.answer.set_exception(error)
