"""Settlement: the reply, result, retry or dead letter of a handled message."""

import asyncio
import logging
from contextlib import suppress

from bus.errors import (
    BusError,
    Cancelled,
    ConnectionLost,
    Internal,
    InvalidArgument,
    UnknownKey,
    error_name,
)
from bus.messaging.backoff import backoff
from bus.messaging.body_limit import LOWEST_MAX_BODY_BYTES
from bus.messaging.dependency_wait import DEPENDENCY_WAIT, count_of, with_wait
from bus.messaging.envelope import Envelope, error_reply
from bus.messaging.failure_location import failure_facts
from bus.messaging.fault_record import (
    FIRST_FAILED,
    PARKED,
    FailedBy,
    fault_headers,
    since_first_failure,
    with_attempt,
)
from bus.messaging.jobs.markers import MARKER_TYPE
from bus.messaging.labels import drop_type, failure_label, message_facts, message_label, one_line
from bus.messaging.ports.transport import Delivery
from bus.messaging.settlement import Ack, MoveToDeadLetters, Retry, decide
from bus.messaging.topology.addresses import (
    dead_letter_address,
    reply_address,
    retry_address,
)
from bus.messaging.topology.names import retry_delay_for
from bus.runtime.copy_sender import CopySender
from bus.runtime.dependency_returns import DependencyReturns
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.job_reports import JobReports, log_unsent_update, unsendable_reply
from bus.security.keyring import MIN_REFRESH_SECONDS

__all__ = ["Settler"]

log = logging.getLogger("bus.settlement")

SETTLE_TIMEOUT_SECONDS = 60.0
"""Maximum seconds in which a failed settlement is repeated. A quorum queue elects a new leader in
much less time. After the last try the message is requeued, and its slot is free for another
message."""


class Settler:
    """Settles the messages of one endpoint. The receiver, not the settler, sends the acks."""

    def __init__(self, state: EndpointState, reports: JobReports) -> None:
        self._state = state
        self._endpoint = state.endpoint
        self._runtime = state.runtime
        self._transport = state.runtime.transport
        self._copies = CopySender(state)
        self._service = state.runtime.service
        self._failed_by = FailedBy(
            service=self._service, version=state.runtime.settings.service_version
        )
        self._reports = reports
        self._returns = DependencyReturns(state, self._copies, reports)
        self._measures = state.measures
        self._stopping = asyncio.Event()

    async def settle(self, message: InboundMessage, result: HandlingResult) -> bool:
        """Send the reply, result, retry copy or dead letter that `result` requires.

        Returns:
            True if the message can be acked. False if it must be requeued, because the broker has
            not confirmed the copy or result.

        Raises:
            InvalidArgument: The copy is too large.
            PermissionDenied: The broker does not allow this service to send the copy.
        """
        envelope, measures = message.envelope, self._measures
        if result.error is not None:
            if not result.is_counted and measures is not None:
                measures.refused(message, result)  # a stage rejected it before its handler
            result.is_repeated, result.copies = message.is_repeated, message.copies
            if envelope.type == MARKER_TYPE:
                return True  # of an instance with a store; this one has none, and records no job
        if envelope.role == "request":
            if envelope.reply_to and self._may_reply(envelope, result):
                reply = self._protected_reply(envelope, result)
                await self._send_reply(envelope, reply, message.deliveries[-1])
            return True  # if no reply can be sent, the caller's deadline ends the call
        if envelope.unread_bytes is not None:
            return await self._reject_unread(message, result)
        return await self._settle(envelope, result) or await self._retry_settle(envelope, result)

    async def abandon(
        self, message: InboundMessage, result: HandlingResult, cause: BaseException
    ) -> bool:
        """Answer a request with an error, or dead-letter an event or job, after a failed `settle`.

        Args:
            message: The message that `settle` could not settle.
            result: The result of its handling.
            cause: The unexpected exception of `settle`.

        Returns:
            True if the message can be acked. False if it must be requeued, because the broker has
            not confirmed the dead letter.
        """
        envelope = message.envelope
        if envelope.role == "request":
            if envelope.reply_to and self._may_reply(envelope, result):
                fault = unsendable_reply(envelope, cause, source=self._service)
                replaced = HandlingResult(reply=fault, unauthorized=result.unauthorized)
                reply = self._protected_reply(envelope, replaced)
                await self._send_reply(envelope, reply, message.deliveries[-1])
            return True
        if result.error is None:
            return True  # the work is done, and only its report failed
        decision = MoveToDeadLetters(
            code=Internal.code,
            reason=f"{error_name(result.error)}: the message could not be settled, because of "
            f"{type(cause).__name__}",
        )
        return await self._dead_letter(envelope, result, decision)

    async def wait_before_retry(self, attempt: int) -> bool:
        """Wait 1 to 2 s before another try. Return False at once if the service is stopping."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), 1 + backoff(attempt))
        return not self._stopping.is_set()

    def stop_retrying(self) -> None:
        """Stop retrying, because the service is stopping. Messages not settled yet are requeued."""
        self._stopping.set()

    async def close(self) -> None:
        """Stop retrying the results of jobs."""
        await self._reports.close()

    # --- Requests ---

    def _protected_reply(self, request: Envelope, result: HandlingResult) -> Envelope:
        reply = result.reply or self._failure(request, result)
        return self._runtime.security.protect_reply(
            reply, request, unauthorized=result.unauthorized
        )

    async def _send_reply(self, request: Envelope, reply: Envelope, via: Delivery | None) -> None:
        """Send a reply on the channel of `via`.

        On this channel, the reply reaches the broker before the ack. If the channel is
        closed, the reply is sent on another channel.
        """
        now = self._runtime.clock()
        timeout = 1.0 if request.deadline is None else max(1.0, request.deadline / 1000 - now)
        address = reply_address(request.reply_to or "")
        try:
            await self._transport.send(
                reply.replace(timestamp=int(now)), address, timeout=timeout, via=via
            )
        except BusError as error:
            log.warning(
                "the reply to %s could not be sent to %s: %s",
                message_label(request),
                one_line(request.source),
                one_line(str(error)),
                extra=message_facts(request, why=str(error)),
            )
            is_replaceable = reply.error is None or len(reply.body) > LOWEST_MAX_BODY_BYTES
            if isinstance(error, InvalidArgument) and is_replaceable:
                fault = unsendable_reply(request, error, source=self._service)
                fault = fault.replace(authorization=reply.authorization)
                await self._send_reply(request, fault, via)
            elif isinstance(error, ConnectionLost) and via is not None:
                await self._send_reply(request, reply, None)

    def _may_reply(self, envelope: Envelope, result: HandlingResult) -> bool:
        """Return True if a reply may be sent. A forged message may have a forged reply address."""
        return not result.unauthorized or self._state.guard.may_reply(envelope)

    def _failure(self, envelope: Envelope, result: HandlingResult) -> Envelope:
        error = result.error or Cancelled()
        return error_reply(
            envelope,
            error,
            source=self._service,
            has_run=result.has_run,
            is_repeated=result.is_repeated,
            copies=result.copies,
        )

    # --- Events and jobs ---

    async def _retry_settle(self, envelope: Envelope, result: HandlingResult) -> bool:
        """Repeat the settlement until it succeeds, for at most `SETTLE_TIMEOUT_SECONDS`.

        The message is not requeued, because before RabbitMQ 4.3 each requeue counts as a lost
        delivery.
        """
        loop = asyncio.get_running_loop()
        ends, attempt = loop.time() + SETTLE_TIMEOUT_SECONDS, 0
        while loop.time() < ends:
            attempt += 1
            if not await self.wait_before_retry(attempt):
                return False
            if await self._settle(envelope, result):
                return True
        return False

    async def _settle(self, envelope: Envelope, result: HandlingResult) -> bool:
        if result.dependency_return is not None:
            return await self._returns.send(envelope, result, result.dependency_return)
        now = self._now()
        if result.held_seconds:
            envelope = envelope.replace(headers=with_wait(envelope.headers, result.held_seconds))
        first_failed = envelope.headers.get(FIRST_FAILED, now)
        lasted = (now - first_failed) / 1000 if isinstance(first_failed, int) else 0.0
        lasted -= count_of(envelope.headers, DEPENDENCY_WAIT) / 1000
        match decide(result.error, envelope.attempt, self._endpoint.retry, lasted=lasted):
            case Ack():
                reply = result.reply
                return reply is None or await self._reports.report_result(envelope, reply)
            case _ if result.waits:
                return await self._defer_until_refresh(envelope, result, now)
            case Retry(delay=delay):
                return await self._retry(envelope, result, delay)
            case MoveToDeadLetters() as decision:
                return await self._dead_letter(envelope, result, decision)

    async def _retry(self, envelope: Envelope, result: HandlingResult, delay: float) -> bool:
        # A failed check of the sender is retried too, so `reply_to` can be an attacker's text.
        may_report = result.error is not None and self._may_reply(envelope, result)
        headers = with_attempt(
            since_first_failure(envelope.headers, self._now()), result.traceparent
        )
        copy = envelope.replace(attempt=envelope.attempt + 1, headers=headers)
        tier = retry_delay_for(delay)
        address = retry_address(self._service, tier, self._endpoint.queue)
        if not await self._copies.send(copy, address):
            return False
        self._count_retry(envelope, result, tier)
        if may_report and result.error is not None:
            await self._reports.report_retry(envelope, result.error, self._endpoint.retry, delay)
        return True

    async def _defer_until_refresh(
        self, envelope: Envelope, result: HandlingResult, now: int
    ) -> bool:
        """Send the message to a retry tier, with the same attempt number.

        The keys or grants are read again before the message is checked again.
        """
        facts = message_facts(envelope, queue=self._endpoint.queue)
        problem = (
            "an unknown signing key"
            if isinstance(result.error, UnknownKey)
            else f"no grant ({one_line(str(result.error))})"
        )
        log.warning(
            "%s in %s has %s; the message waits in a retry tier",
            message_label(envelope),
            self._endpoint.queue,
            problem,
            extra=facts,
        )
        copy = envelope.replace(headers={PARKED: now, **envelope.headers})
        tier = retry_delay_for(MIN_REFRESH_SECONDS)
        address = retry_address(self._service, tier, self._endpoint.queue)
        if not await self._copies.send(copy, address):
            return False
        self._count_retry(envelope, result, tier)
        return True

    def _count_retry(self, envelope: Envelope, result: HandlingResult, tier: str) -> None:
        if self._measures is not None:
            self._measures.retried(envelope, result, tier)

    def _count_dead_letter(self, envelope: Envelope, result: HandlingResult, code: str) -> None:
        if self._measures is not None:
            self._measures.dead_lettered(envelope, result, code)

    async def _dead_letter(
        self, envelope: Envelope, result: HandlingResult, decision: MoveToDeadLetters
    ) -> bool:
        queue = self._endpoint.queue
        error = result.error or Cancelled()
        headers = fault_headers(
            envelope, decision, error, queue=queue, now=self._now(), worker=self._failed_by
        )
        copy = envelope.replace(headers=with_attempt(headers, result.traceparent))
        if not await self._copies.send(copy, dead_letter_address(queue)):
            return False
        self._count_dead_letter(envelope, result, decision.code)
        facts = message_facts(
            envelope,
            queue=queue,
            code=decision.code,
            why=decision.reason,
            **failure_facts(error),
        )
        log.error(
            "%s dead-lettered from %s after attempt %d: %s",
            message_label(envelope),
            queue,
            envelope.attempt,
            failure_label(facts, drop_type(decision.reason, envelope)),
            extra=facts,
        )
        if envelope.role == "job":
            await self._report_failure(envelope, result)
        return True

    async def _reject_unread(self, message: InboundMessage, result: HandlingResult) -> bool:
        """Let the broker dead-letter a message, because this process has not kept its body.

        A dead letter from this process would have no body, and the payload would be lost.
        """
        envelope, queue, why = message.envelope, self._endpoint.queue, str(result.error)
        if not await message.reject():
            return True  # the channel is closed, so the broker delivers the message again
        self._count_dead_letter(envelope, result, InvalidArgument.code)
        log.error(
            "%s in %s was rejected, and the broker dead-letters it: %s",
            message_label(envelope),
            queue,
            one_line(why),
            extra=message_facts(envelope, queue=queue, code=InvalidArgument.code, why=why),
        )
        if envelope.role == "job":
            await self._report_failure(envelope, result)
        return True

    async def _report_failure(self, envelope: Envelope, result: HandlingResult) -> None:
        """Notify the submitter of a job that was dead-lettered.

        The dead letter exists already, so no exception may end the settlement here. A second
        settlement would write a second dead letter.
        """
        try:
            if not self._may_reply(envelope, result):
                return
            failure, retry = self._failure(envelope, result), not result.unauthorized
            if not await self._reports.report_result(envelope, failure, retry=retry) and retry:
                # The job is not requeued, so no later run reports the failure.
                self._reports.retry_result(envelope, failure)
        except Exception as error:  # noqa: BLE001 - see the docstring
            log_unsent_update(envelope, error)

    def _now(self) -> int:
        return int(self._runtime.clock() * 1000)
