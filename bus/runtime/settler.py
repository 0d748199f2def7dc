"""Settlement: the reply, result, retry or dead letter of a handled message."""

import asyncio
import logging
from contextlib import suppress

from bus.errors import (
    BusError,
    Cancelled,
    ConnectionLost,
    InvalidArgument,
    PermissionDenied,
    UnknownKey,
)
from bus.messaging.backoff import backoff
from bus.messaging.envelope import Envelope, error_reply
from bus.messaging.failure_location import failure_facts
from bus.messaging.fault_record import (
    FIRST_FAILED,
    PARKED,
    FailedBy,
    fault_headers,
    since_first_failure,
)
from bus.messaging.labels import failure_label, message_facts, message_label, one_line
from bus.messaging.ports.transport import Accepted, Delivery
from bus.messaging.settlement import Ack, MoveToDeadLetters, Retry, decide
from bus.messaging.topology.addresses import (
    Address,
    dead_letter_address,
    reply_address,
    retry_address,
)
from bus.messaging.topology.names import retry_delay_for
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.job_reports import JobReports, unsendable_reply
from bus.security.keyring import MIN_REFRESH_SECONDS

__all__ = ["Settler"]

log = logging.getLogger("bus.settlement")

COPY_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for the confirm of a retry copy or dead letter. After this time, the copy is sent
again."""
SETTLE_TIMEOUT_SECONDS = 60.0
"""Maximum seconds in which a failed settlement is repeated. A quorum queue elects a new leader in
much less time. After the last try the message is requeued, and its slot is free for another
message."""
PERMANENT_ERRORS = (InvalidArgument, PermissionDenied)
"""Errors that a retry cannot fix: the message is too large, or the broker refuses access. The
message is requeued. Before RabbitMQ 4.3, each requeue counts toward the queue's delivery limit."""


class Settler:
    """Settles the messages of one endpoint. The receiver, not the settler, sends the acks."""

    def __init__(self, state: EndpointState, reports: JobReports) -> None:
        self._state = state
        self._endpoint = state.endpoint
        self._runtime = state.runtime
        self._transport = state.runtime.transport
        self._service = state.runtime.service
        self._failed_by = FailedBy(
            service=self._service, version=state.runtime.settings.service_version
        )
        self._reports = reports
        self._stopping = asyncio.Event()

    async def settle(self, message: InboundMessage, result: HandlingResult) -> bool:
        """Send the reply, result, retry copy or dead letter that `result` requires.

        Returns:
            True if the message can be acked. False if it must be requeued, because the broker has
            not confirmed the copy or result.
        """
        envelope = message.envelope
        if envelope.role == "request":
            if envelope.reply_to and self._may_reply(envelope, result):
                reply = self._protected_reply(envelope, result)
                await self._send_reply(envelope, reply, message.deliveries[-1])
            return True  # if no reply can be sent, the caller's deadline ends the call
        try:
            return await self._settle(envelope, result) or await self._retry_settle(
                envelope, result
            )
        except PERMANENT_ERRORS:
            await asyncio.sleep(1 + backoff(1))  # the broker redelivers a requeued message at once
            return False

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
                error,
                extra=message_facts(request, why=str(error)),
            )
            if isinstance(error, InvalidArgument) and reply.error is None:
                fault = unsendable_reply(request, error, source=self._service)
                fault = fault.replace(authorization=reply.authorization)
                await self._send_reply(request, fault, via)
            elif isinstance(error, ConnectionLost) and via is not None:
                await self._send_reply(request, reply, None)

    def _may_reply(self, envelope: Envelope, result: HandlingResult) -> bool:
        """Return True if a reply may be sent. A forged message may have a forged reply address."""
        return not result.unauthorized or self._state.guard.may_reply(envelope)

    def _failure(self, envelope: Envelope, result: HandlingResult) -> Envelope:
        return error_reply(envelope, result.error or Cancelled(), source=self._service)

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
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1 + backoff(attempt))
                return False
            if await self._settle(envelope, result):
                return True
        return False

    async def _settle(self, envelope: Envelope, result: HandlingResult) -> bool:
        now = self._now()
        first_failed = envelope.headers.get(FIRST_FAILED, now)
        lasted = (now - first_failed) / 1000 if isinstance(first_failed, int) else 0.0
        match decide(result.error, envelope.attempt, self._endpoint.retry, lasted=lasted):
            case Ack():
                reply = result.reply
                return reply is None or await self._reports.report_result(envelope, reply)
            case _ if isinstance(result.error, UnknownKey) and PARKED not in envelope.headers:
                return await self._defer_until_keys_refresh(envelope, now)
            case Retry(delay=delay):
                return await self._retry(envelope, result, delay)
            case MoveToDeadLetters() as decision:
                return await self._dead_letter(envelope, result, decision)

    async def _retry(self, envelope: Envelope, result: HandlingResult, delay: float) -> bool:
        headers = since_first_failure(envelope.headers, self._now())
        copy = envelope.replace(attempt=envelope.attempt + 1, headers=headers)
        address = retry_address(self._service, retry_delay_for(delay), self._endpoint.queue)
        if not await self._republish(copy, address):
            return False
        if result.error is not None:
            await self._reports.report_retry(envelope, result.error, self._endpoint.retry, delay)
        return True

    async def _defer_until_keys_refresh(self, envelope: Envelope, now: int) -> bool:
        """Send the message to a retry tier, with the same attempt number.

        The keys are fetched before the message returns from the tier.
        """
        facts = message_facts(envelope, queue=self._endpoint.queue)
        log.warning(
            "%s in %s has an unknown signing key; the message waits in a retry tier",
            message_label(envelope),
            self._endpoint.queue,
            extra=facts,
        )
        copy = envelope.replace(headers={PARKED: now, **envelope.headers})
        tier = retry_delay_for(MIN_REFRESH_SECONDS)
        return await self._republish(copy, retry_address(self._service, tier, self._endpoint.queue))

    async def _dead_letter(
        self, envelope: Envelope, result: HandlingResult, decision: MoveToDeadLetters
    ) -> bool:
        queue = self._endpoint.queue
        error = result.error or Cancelled()
        headers = fault_headers(
            envelope, decision, error, queue=queue, now=self._now(), worker=self._failed_by
        )
        if not await self._republish(envelope.replace(headers=headers), dead_letter_address(queue)):
            return False
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
            failure_label(facts, decision.reason),
            extra=facts,
        )
        if envelope.role == "job" and self._may_reply(envelope, result):
            failure, retry = self._failure(envelope, result), not result.unauthorized
            if not await self._reports.report_result(envelope, failure, retry=retry) and retry:
                # The job is not requeued, so no later run reports the failure.
                self._reports.retry_result(envelope, failure)
        return True

    async def _republish(self, copy: Envelope, address: Address) -> bool:
        """Remove the deadline and expiration from a copy, send it, and wait for the confirm.

        Return False if the broker did not accept the copy.
        """
        try:
            outcome = await self._transport.send(
                copy.replace(deadline=None, expiration=None),
                address,
                timeout=COPY_TIMEOUT_SECONDS,
            )
        except BusError as error:
            await self._redeclare_topology(copy, address, str(error))
            if isinstance(error, PERMANENT_ERRORS):
                raise
            return False
        if isinstance(outcome, Accepted):
            return True
        await self._redeclare_topology(copy, address, outcome.reason)
        return False

    async def _redeclare_topology(self, copy: Envelope, address: Address, why: str) -> None:
        """Declare the topology again, because the queue of a copy may be missing."""
        queue, label = self._endpoint.queue, message_label(copy)
        facts = message_facts(copy, queue=queue, exchange=address.exchange, why=why)
        log.error(
            "%s in %s: the broker did not accept a copy of the message: %s",
            label,
            queue,
            why,
            extra=facts,
        )
        try:
            async with asyncio.timeout(COPY_TIMEOUT_SECONDS):
                await self._transport.declare(self._state.spec.topology)
        except (BusError, TimeoutError) as error:
            reason = str(error) or f"no answer within {COPY_TIMEOUT_SECONDS:g} s"
            log.warning(
                "%s in %s: the queues of the copy could not be declared: %s",
                label,
                queue,
                reason,
                extra=message_facts(copy, queue=queue, why=reason),
            )

    def _now(self) -> int:
        return int(self._runtime.clock() * 1000)
