"""The sender of messages: the innermost handler of a client's middlewares."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import cast

from bus.contracts.contract import Kind
from bus.errors import DeadlineExceeded, NotServed, ResourceExhausted, Unavailable
from bus.messaging.call_limits import name_attempt
from bus.messaging.envelope import Envelope
from bus.messaging.error_state import mark_as_broker_error
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.ports.liveness import Liveness
from bus.messaging.ports.transport import Accepted, Nacked, PublishOutcome, Returned
from bus.messaging.send_time import current_send
from bus.messaging.timers import loop_time
from bus.messaging.topology.addresses import address_of
from bus.runtime.broker_watch import BrokerWatch
from bus.runtime.pending_replies import PendingReplies
from bus.runtime.pending_request import check_reply
from bus.runtime.reply_receiver import ReplyReceiver
from bus.runtime.reply_timeouts import name_broker
from bus.runtime.sent_history import sent_history
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["MessageSender"]

MAX_EXPIRATION_MS = 2**32 - 1
"""The longest expiration that the client sets on a request, in ms: 49 days.

RabbitMQ closes the channel if an expiration is much longer, for example 10 years on RabbitMQ 3.10.
Every call in flight on that channel would then fail.
"""
GRACE_SECONDS = 0.05
"""Seconds that the client waits longer for the reply to an attempt than the service may work.

A service that ends a handler at the end of the attempt sends an error. If this error came after the
next attempt was sent, it would end the next attempt, because both have the same message id.
"""
FULL_PART = 0.9
"""Part of the configured time after which an attempt counts as one that had its full time.

The send itself takes a part of the time, and the service's clock can differ a little.
"""


class MessageSender:
    """The sender of one process. It sends each message once, and waits for the reply to a request.

    The middlewares and the policies of the destination send a message more than once.
    """

    def __init__(
        self,
        runtime: ServiceRuntime,
        replies: PendingReplies,
        receiver: ReplyReceiver,
        timeout_of: Callable[[str], float],
    ) -> None:
        """Create a sender.

        Args:
            runtime: The objects that all parts of this process share, such as the transport.
            replies: The calls and jobs that wait for replies.
            receiver: The consumer that receives the replies.
            timeout_of: Function that returns the seconds that a request of a type waits by default.
        """
        self._transport = runtime.transport
        self._clock = runtime.clock
        self._request_timeout = runtime.settings.request_timeout
        self._replies = replies
        self._receiver = receiver
        self._timeout_of = timeout_of
        # At the innermost place, where the ids and the trace of a message are complete.
        self._remember = sent_history(runtime.history, runtime.clock)
        self.watch = (
            BrokerWatch(self._transport, replies.is_waiting)
            if isinstance(self._transport, Liveness)
            else None
        )
        """None if the transport cannot tell whether the broker answers."""
        self._notes_sends = runtime.destinations.need_send_times

    def send(self, envelope: Envelope) -> Awaitable[Envelope | None]:
        """Send a message. If the message is a request, also wait for its reply.

        This method is the innermost handler of the client's middlewares.
        """
        if envelope.role != "request":
            return self._publish(envelope)
        return self._call_service(envelope)

    async def _publish(self, envelope: Envelope) -> None:
        kind, started = cast("Kind", envelope.role), perf_counter()
        if kind == "job":
            self._replies.record_job_sent(envelope)
        try:
            outcome = await self._transport.send(
                envelope, address_of(kind, envelope.type), timeout=self.remaining(envelope)
            )
            _raise_unless_accepted(outcome, envelope)
        except BaseException as error:  # such as the cancellation of the caller
            mark_as_broker_error(error)
            self._remember(envelope, started, outcome_of(error))
            raise
        self._remember(envelope, started, OK)

    async def _call_service(self, envelope: Envelope) -> Envelope:
        started = perf_counter()
        consumer = self._receiver.consumer
        if consumer is None or not consumer.ready:
            await self._wait_for_reply_consumer(envelope)
        remaining = seconds = self.remaining(envelope)
        limits = envelope.limits
        attempt_timeout = None if limits is None else limits.attempt_timeout
        if attempt_timeout is not None and attempt_timeout < remaining:
            seconds = attempt_timeout
            envelope = envelope.replace(deadline=int((self._clock() + seconds) * 1000))
        # The broker drops the request when this expiration has passed. The deadline header is not
        # enough, because the clock of the server can differ from the clock of this process.
        envelope = envelope.replace(expiration=min(int(seconds * 1000), MAX_EXPIRATION_MS))
        future = self._replies.register(
            envelope.id, remaining, envelope.type, envelope.authorization, limits
        )
        if self.watch is not None and self.watch.timer is None:
            self.watch.start()
        sent_at: float | None = None
        try:
            _raise_unless_accepted(
                await self._transport.send(
                    envelope, address_of("request", envelope.type), timeout=remaining
                ),
                envelope,
            )
            sent_at = asyncio.get_running_loop().time()  # faster than `loop_time`
            if self._notes_sends:
                self._note_send(envelope.id, sent_at)
            if seconds < remaining:
                # The time without a connection is not part of the attempt.
                self._replies.limit_wait(future, seconds + GRACE_SECONDS)
            reply = await future
        except BaseException as error:  # as above
            if sent_at is None:
                mark_as_broker_error(error)
            elif isinstance(error, DeadlineExceeded):
                self._note_time(envelope, error, sent_at, is_reply=False)
            self._remember(envelope, started, outcome_of(error))
            raise
        finally:
            self._replies.discard(envelope.id, future)
            del future  # a failed future is a reference cycle: its error's traceback has this frame
        self._remember(envelope, started, reply.error or OK)
        try:
            check_reply(reply, envelope.type)  # here, so that the middlewares receive the exception
        except DeadlineExceeded as error:
            self._note_time(envelope, error, sent_at, is_reply=True)
            _name_attempt(envelope, error, loop_time() - sent_at)
            raise
        return reply

    def _note_send(self, message_id: str, sent_at: float) -> None:
        """Note the time of a send for the circuit breaker and for the hedge."""
        if (send_time := current_send.get()) is not None:
            send_time.at = sent_at
        self._replies.mark_sent(message_id)

    def _note_time(
        self, envelope: Envelope, error: DeadlineExceeded, sent_at: float, *, is_reply: bool
    ) -> None:
        """Note in a time-out of the service if the attempt had its configured time.

        If the broker did not answer in this time, the service may have had no part in the time-out.

        Args:
            envelope: Request that was sent.
            error: Error of the attempt, which gets the note.
            sent_at: Time of the send, in seconds of the event loop's clock.
            is_reply: True if the service has answered with the error.
        """
        if error.origin != "service":
            return
        now, limits = loop_time(), envelope.limits
        configured = None if limits is None else limits.attempt_timeout
        if configured is None:
            configured = self._timeout_of(envelope.type)
        error.had_full_time = now - sent_at >= configured * FULL_PART
        if self.watch is not None and not self.watch.answered_since(sent_at, now):
            error.had_full_time = False
            if not is_reply:
                error.origin = "broker"
                error.was_broker_silent = self.watch.was_silent_since(sent_at)
                name_broker(error)

    async def _wait_for_reply_consumer(self, envelope: Envelope) -> None:
        """Wait until the consumer of the reply queue is ready, before a request is sent."""
        consumer = self._receiver.consumer
        if consumer is None:
            raise Unavailable("the client is not started. Use it inside `async with Bus(…)`.")
        try:
            async with asyncio.timeout(self.remaining(envelope)):
                await consumer.wait_ready()
        except TimeoutError:
            unconnected = Unavailable(
                f"{envelope.type}: the request was not sent, because the bus is not connected to "
                "the broker. Check that RabbitMQ runs."
            )
            mark_as_broker_error(unconnected)
            raise unconnected from None

    def remaining(self, envelope: Envelope) -> float:
        """Return the seconds until the deadline of a message."""
        if envelope.deadline is None:
            return self._request_timeout
        return max(0.0, envelope.deadline / 1000 - self._clock())


def _name_attempt(envelope: Envelope, error: DeadlineExceeded, passed: float) -> None:
    """Name the attempt in a time-out of the service, if the time of the attempt has passed."""
    limits, expiration = envelope.limits, envelope.expiration
    if limits is None or limits.attempt_timeout is None or expiration is None:
        return
    seconds = expiration / 1000
    if passed >= seconds * FULL_PART:
        name_attempt(error, envelope.type, seconds, limits)


def _raise_unless_accepted(outcome: PublishOutcome, envelope: Envelope) -> None:
    match outcome:
        case Accepted():
            return
        case Returned(reason=reason):
            raise NotServed(
                f"{envelope.type}: no service serves it ({reason}). "
                "Start the service in a version that has a handler for it."
            )
        case Nacked(reason=reason):
            # A queue without a leader can nack a message although the queue has stored it.
            raise ResourceExhausted(
                f"{envelope.type}: the broker refused the message ({reason}), because the queue is "
                "full or has no leader. Inspect the queue.",
                maybe_executed=True,
            )
