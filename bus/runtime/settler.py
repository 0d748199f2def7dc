"""What follows from how a message was handled: the reply, the result, the retry copy, the dead letter."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bus.errors import (
    BusError,
    Cancelled,
    ConnectionLost,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    UnknownKey,
    code_of,
    safe_reason,
)
from bus.messaging.backoff import backoff
from bus.messaging.envelope import Envelope, Progress, error_reply, progress_update
from bus.messaging.fault_record import (
    FIRST_FAILED,
    PARKED,
    FailedBy,
    fault_headers,
    since_first_failure,
)
from bus.messaging.ports.transport import Accepted, Delivery, Transport
from bus.messaging.settlement import Ack, MoveToDeadLetters, Requeue, Retry, decide
from bus.messaging.topology.addresses import (
    Address,
    dead_letter_address,
    reply_address,
    retry_address,
    update_address,
)
from bus.messaging.topology.model import Topology
from bus.messaging.topology.names import RETRY_DELAYS, retry_delay_for
from bus.runtime.router import Endpoint
from bus.security.encryption import NO_ENCRYPTION, PayloadCipher
from bus.security.endpoint_guard import EndpointGuard
from bus.security.keyring import MIN_REFRESH_SECONDS

__all__ = ["HandlingResult", "Settler"]

log = logging.getLogger("bus.settlement")

COPY_TIMEOUT_SECONDS = 10.0
"""Seconds for a retry copy, dead letter or result to be confirmed; after that it is sent again."""
SETTLE_TIMEOUT_SECONDS = 60.0
"""Seconds in which that is tried, several times what a queue needs that has lost its leader. Then the message goes back, to make room."""
PERMANENT_ERRORS = (InvalidArgument, PermissionDenied)
"""What sending a copy again cannot help: it is too large, or not allowed. The broker gives its message up after so many returns."""
PROGRESS_TIMEOUT_SECONDS = 0.5
"""Seconds; progress is worth little, and must not hold the job."""
RESULT_RETRY_SECONDS = 30.0
"""Seconds for which a result is offered again to a submitter that is away: long enough for it to reconnect."""
MAX_PENDING_RESULTS = 100
"""Results that are offered again at a time; who submits and leaves must not fill the worker's memory."""


# Not frozen, unlike all other values: that would cost each message more than the rest of its settlement.
@dataclass(slots=True, kw_only=True)
class HandlingResult:
    """How one attempt ended."""

    reply: Envelope | None = None
    error: BaseException | None = None
    unauthorized: bool = False
    """Whether it was not let in: who sent it is not known, or may not."""
    settled: bool = False
    """Whether everything that follows from it is done but the ack."""


class Settler:
    """Concludes what one endpoint handled. Nothing is acked here: that comes after, in the receiver."""

    def __init__(  # noqa: PLR0913 - what a message meets on its way out
        self,
        endpoint: Endpoint,
        topology: Topology,
        transport: Transport,
        *,
        service: str,
        gate: EndpointGuard | None = None,
        cipher: PayloadCipher = NO_ENCRYPTION,
        version: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`gate` signs answers, and `cipher` encrypts them; `version` is the service's own, for the record on what it gives up."""
        self._endpoint = endpoint
        self._topology = topology
        self._transport = transport
        self._service = service
        self._gate = gate
        self._cipher = cipher
        self._worker = FailedBy(service=service, version=version)
        self._clock = clock
        self._offers: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def settle(self, envelope: Envelope, outcome: HandlingResult, via: Delivery) -> bool:
        """Do what follows. False where the broker has not taken responsibility, so that the message must not be acked."""
        if envelope.role == "request":
            if envelope.reply_to and self._may_reply(envelope, outcome):
                answer = outcome.reply or self._failure(envelope, outcome)
                await self._send_reply(
                    envelope, envelope.reply_to, self._protect_reply(answer, envelope, outcome), via
                )
            return True  # the caller's deadline ends what no reply can
        try:
            return await self._settle(envelope, outcome) or await self._retry_settle(
                envelope, outcome
            )
        except PERMANENT_ERRORS:
            await asyncio.sleep(1 + backoff(1))  # it comes again at once
            return False

    async def _retry_settle(self, envelope: Envelope, outcome: HandlingResult) -> bool:
        """In hand: a message that went back each time would count as lost each time (before RabbitMQ 4.3), and be given up."""
        loop = asyncio.get_running_loop()
        ends, attempt = loop.time() + SETTLE_TIMEOUT_SECONDS, 0
        while loop.time() < ends:
            attempt += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1 + backoff(attempt))
                return False
            if await self._settle(envelope, outcome):
                return True
        return False

    def stop_retrying(self) -> None:
        """The service stops: what cannot be concluded now goes back."""
        self._stopping.set()

    async def close(self) -> None:
        """Offer results no more."""
        for offer in self._offers:
            offer.cancel()
        await asyncio.gather(*self._offers, return_exceptions=True)

    async def _send_reply(
        self, request: Envelope, reply_to: str, answer: Envelope, via: Delivery | None
    ) -> None:
        """On the delivery's own channel, so that the reply reaches the broker before the ack; where that is gone, on another."""
        now = self._clock()
        timeout = 1.0 if request.deadline is None else max(1.0, request.deadline / 1000 - now)
        try:
            await self._transport.send(
                answer.replace(timestamp=int(now)),
                reply_address(reply_to),
                timeout=timeout,
                via=via,
            )
        except BusError as error:
            log.warning(
                "a reply could not be sent", extra={"type": request.type, "why": str(error)}
            )
            if isinstance(error, InvalidArgument) and answer.error is None:
                fault = self._unsendable_reply(request, error).replace(
                    authorization=answer.authorization
                )
                await self._send_reply(request, reply_to, fault, via)
            elif isinstance(error, ConnectionLost) and via is not None:
                await self._send_reply(request, reply_to, answer, None)

    async def _settle(self, envelope: Envelope, outcome: HandlingResult) -> bool:
        now = self._now()
        first_failed = envelope.headers.get(FIRST_FAILED, now)
        lasted = (now - first_failed) / 1000 if isinstance(first_failed, int) else 0.0
        match decide(outcome.error, envelope.attempt, self._endpoint.retry, lasted=lasted):
            case Ack():
                return outcome.reply is None or await self._report_result(envelope, outcome.reply)
            case _ if isinstance(outcome.error, UnknownKey) and PARKED not in envelope.headers:
                return await self._defer_until_keys_refresh(envelope, now)
            case Retry(delay=delay):
                address = retry_address(self._service, retry_delay_for(delay), self._endpoint.queue)
                headers = since_first_failure(envelope.headers, now)
                copied = await self._republish(
                    envelope.replace(attempt=envelope.attempt + 1, headers=headers), address
                )
                if copied:
                    await self._report_retry(envelope, outcome, delay)
                return copied
            case MoveToDeadLetters() as decision:
                return await self._dead_letter(envelope, decision, outcome)
            case Requeue():
                return False

    def _protect_reply(
        self, answer: Envelope, request: Envelope, outcome: HandlingResult
    ) -> Envelope:
        """With a token for who asked. Who was not let in could be anyone: he gets a proof, which serves for nothing else."""
        answer = self._cipher.encrypt(answer)
        if self._gate is None:
            return answer
        if outcome.unauthorized:
            return self._gate.signer.sign_reply(answer, request.source, refused=request)
        return answer.replace(
            authorization=self._gate.signer.authorization(request.source, for_replies=True)
        )

    async def _defer_until_keys_refresh(self, envelope: Envelope, now: int) -> bool:
        """Its key may be a new one: it comes again, as the same attempt, when the keys have been looked at."""
        facts = {"type": envelope.type, "queue": self._endpoint.queue, "message_id": envelope.id}
        log.warning("its key is not known yet; the message waits", extra=facts)
        parked = envelope.replace(headers={PARKED: now, **envelope.headers})
        return await self._republish(
            parked,
            retry_address(
                self._service, retry_delay_for(MIN_REFRESH_SECONDS), self._endpoint.queue
            ),
        )

    async def _dead_letter(
        self, envelope: Envelope, decision: MoveToDeadLetters, outcome: HandlingResult
    ) -> bool:
        queue = self._endpoint.queue
        error = type(outcome.error or Cancelled()).__name__
        headers = fault_headers(
            envelope, decision, error, queue=queue, now=self._now(), worker=self._worker
        )
        if not await self._republish(envelope.replace(headers=headers), dead_letter_address(queue)):
            return False
        facts = {
            "type": envelope.type,
            "queue": queue,
            "message_id": envelope.id,
            "code": decision.code,
            "why": decision.reason,
        }
        log.error("dead-lettered", extra=facts)
        if envelope.role == "job" and self._may_reply(envelope, outcome):
            failure, again = self._failure(envelope, outcome), not outcome.unauthorized
            if not await self._report_result(envelope, failure, again=again) and again:
                self._send_result_later(
                    envelope, failure
                )  # nothing else brings it: the job does not go back
        return True

    def _may_reply(self, envelope: Envelope, outcome: HandlingResult) -> bool:
        """Whether there is an answer: where a message that was not let in wants it is to be judged, too."""
        return not outcome.unauthorized or self._gate is None or self._gate.may_reply(envelope)

    def _failure(self, envelope: Envelope, outcome: HandlingResult) -> Envelope:
        return error_reply(envelope, outcome.error or Cancelled(), source=self._service)

    def _unsendable_reply(self, envelope: Envelope, error: InvalidArgument) -> Envelope:
        """What is said instead of an answer that is too large; its own fault, and not the asker's."""
        fault = FailedPrecondition(f"the answer could not be sent: {error}", maybe_executed=True)
        return error_reply(envelope, fault, source=self._service)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _protect_update(self, update: Envelope, job: Envelope) -> Envelope:
        """As it is sent now. It carries a proof, and no token: the job's submitter may be anyone until the job was let in."""
        update = self._cipher.encrypt(update.replace(timestamp=int(self._clock())))
        refused = job if update.error is not None else None
        return (
            update
            if self._gate is None
            else self._gate.signer.sign_reply(update, job.source, refused=refused)
        )

    # --- copies ----------------------------------------------------------------------------------------------------

    async def _republish(self, envelope: Envelope, address: Address) -> bool:
        """Send a confirmed copy, which has no deadline but this one's own, and does not expire in its queue."""
        try:
            outcome = await self._transport.send(
                envelope.replace(deadline=None, expiration=None),
                address,
                timeout=COPY_TIMEOUT_SECONDS,
            )
        except BusError as error:
            await self._redeclare_topology(address, str(error))
            if isinstance(error, PERMANENT_ERRORS):
                raise
            return False
        return isinstance(outcome, Accepted) or await self._redeclare_topology(
            address, outcome.reason
        )

    async def _redeclare_topology(self, address: Address, why: str) -> bool:
        """A copy was not taken: see that its queue exists."""
        facts = {"exchange": address.exchange, "queue": self._endpoint.queue, "why": why}
        log.error("a copy was not taken", extra=facts)
        try:
            async with asyncio.timeout(COPY_TIMEOUT_SECONDS):
                await self._transport.declare(self._topology)
        except (BusError, TimeoutError) as error:
            log.warning("its queues could not be declared", extra={"why": str(error)})
        return False

    # --- what a job's submitter hears ------------------------------------------------------------------------------

    async def _report_result(self, job: Envelope, update: Envelope, *, again: bool = True) -> bool:
        """Offer the result to the submitter's handle. False where the broker cannot be reached; a submitter that is away holds nothing.

        `again`: whether it is offered for a while. Who was not let in could be anyone, and must not keep the worker busy.
        """
        if job.reply_to is None:
            return True
        try:
            taken = await self._send_result(job, update)
        except InvalidArgument as error:
            return await self._report_result(job, self._unsendable_reply(job, error), again=again)
        except PermissionDenied as error:  # as it would be each time, and each time it costs the channel on which all others publish
            return self._result_forbidden(update, error)
        except BusError:
            return False
        if again and not taken:
            self._send_result_later(job, update)
        return True

    def _send_result_later(self, job: Envelope, update: Envelope) -> None:
        if len(self._offers) < MAX_PENDING_RESULTS:
            offer = asyncio.get_running_loop().create_task(self._resend_result(job, update))
            self._offers.add(offer)
            offer.add_done_callback(self._offers.discard)

    async def _send_result(self, job: Envelope, update: Envelope) -> bool:
        address = update_address(job.reply_to or "", mandatory=True)
        return isinstance(
            await self._transport.send(
                self._protect_update(update, job), address, timeout=COPY_TIMEOUT_SECONDS
            ),
            Accepted,
        )

    async def _resend_result(self, job: Envelope, update: Envelope) -> None:
        loop = asyncio.get_running_loop()
        ends, attempt = loop.time() + RESULT_RETRY_SECONDS, 0
        while loop.time() < ends:
            attempt += 1
            await asyncio.sleep(backoff(attempt))
            try:
                if await self._send_result(job, update):
                    return
            except PermissionDenied as error:
                self._result_forbidden(update, error)
                return
            except BusError as error:
                log.debug("a result could not be offered", extra={"why": str(error)})
        log.info(
            "nobody took a job's result", extra={"type": update.type, "job": update.in_reply_to}
        )

    def _result_forbidden(self, update: Envelope, error: PermissionDenied) -> bool:
        """The job is done all the same."""
        facts = {"type": update.type, "job": update.in_reply_to, "why": str(error)}
        log.error(
            "a job's submitter may not be told; is the broker's user older than the grants?",
            extra=facts,
        )
        return True

    async def _report_retry(self, job: Envelope, outcome: HandlingResult, delay: float) -> None:
        report = self.progress_reporter(job)
        if report is None or outcome.error is None:
            return
        why = safe_reason(outcome.error)
        note = f"attempt {job.attempt} of {self._endpoint.retry.attempts} failed, the next is in {RETRY_DELAYS[retry_delay_for(delay)]:.3g} s: {why}"
        await report(Progress(progress=0, note=note, error=code_of(outcome.error)))

    def progress_reporter(
        self, job: Envelope
    ) -> Callable[[Progress], Coroutine[Any, Any, None]] | None:
        """What sends a job's progress; None where nobody waits for it."""
        reply_to = job.reply_to
        if job.role != "job" or reply_to is None:
            return None

        async def report(progress: Progress) -> None:
            try:
                update = self._protect_update(
                    progress_update(job, progress, source=self._service), job
                )
                await self._transport.send(
                    update,
                    update_address(reply_to, mandatory=False),
                    timeout=PROGRESS_TIMEOUT_SECONDS,
                )
            except BusError as error:
                log.debug("progress dropped", extra={"why": str(error)})

        return report
