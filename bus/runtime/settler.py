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
from bus.messaging.fault_record import FIRST_FAILED, PARKED, Worker, fault_headers, since_first_failure
from bus.messaging.ports.transport import Accepted, Delivery, Transport
from bus.messaging.settlement import Ack, DeadLetter, Requeue, Retry, settle
from bus.messaging.topology.addresses import Address, dead_letter_address, reply_address, retry_address, update_address
from bus.messaging.topology.model import Topology
from bus.messaging.topology.names import TIERS, tier_for
from bus.runtime.router import Endpoint
from bus.security.encryption import UNUSED, Cipher
from bus.security.endpoint_guard import Gate
from bus.security.keyring import REFETCH_INTERVAL

__all__ = ["Outcome", "Settler"]

log = logging.getLogger("bus.settlement")

COPY_TIMEOUT = 10.0
"""Seconds for a retry copy, dead letter or result to be confirmed; after that it is sent again."""
CONCLUDE_PATIENCE = 60.0
"""Seconds in which that is tried, several times what a queue needs that has lost its leader. Then the message goes back, to make room."""
NEVER = (InvalidArgument, PermissionDenied)
"""What sending a copy again cannot help: it is too large, or not allowed. The broker gives its message up after so many returns."""
PROGRESS_TIMEOUT = 0.5
"""Seconds; progress is worth little, and must not hold the job."""
RESULT_PATIENCE = 30.0
"""Seconds for which a result is offered again to a submitter that is away: long enough for it to reconnect."""
MOST_OFFERS = 100
"""Results that are offered again at a time; who submits and leaves must not fill the worker's memory."""


# Not frozen, unlike all other values: that would cost each message more than the rest of its settlement.
@dataclass(slots=True, kw_only=True)
class Outcome:
    """How one attempt ended."""

    reply: Envelope | None = None
    error: BaseException | None = None
    refused: bool = False
    """Whether it was not let in: who sent it is not known, or may not."""
    concluded: bool = False
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
        gate: Gate | None = None,
        cipher: Cipher = UNUSED,
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
        self._worker = Worker(service=service, version=version)
        self._clock = clock
        self._offers: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def conclude(self, envelope: Envelope, outcome: Outcome, via: Delivery) -> bool:
        """Do what follows. False where the broker has not taken responsibility, so that the message must not be acked."""
        if envelope.traffic == "request":
            if envelope.reply_to and self._may_tell(envelope, outcome):
                answer = outcome.reply or self._failure(envelope, outcome)
                await self._answer(envelope, envelope.reply_to, self._signed(answer, envelope, outcome), via)
            return True  # the caller's deadline ends what no reply can
        try:
            return await self._settle(envelope, outcome) or await self._settle_later(envelope, outcome)
        except NEVER:
            await asyncio.sleep(1 + backoff(1))  # it comes again at once
            return False

    async def _settle_later(self, envelope: Envelope, outcome: Outcome) -> bool:
        """In hand: a message that went back each time would count as lost each time (before RabbitMQ 4.3), and be given up."""
        loop = asyncio.get_running_loop()
        ends, attempt = loop.time() + CONCLUDE_PATIENCE, 0
        while loop.time() < ends:
            attempt += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1 + backoff(attempt))
                return False
            if await self._settle(envelope, outcome):
                return True
        return False

    def hand_back(self) -> None:
        """The service stops: what cannot be concluded now goes back."""
        self._stopping.set()

    async def close(self) -> None:
        """Offer results no more."""
        for offer in self._offers:
            offer.cancel()
        await asyncio.gather(*self._offers, return_exceptions=True)

    async def _answer(self, request: Envelope, reply_to: str, answer: Envelope, via: Delivery | None) -> None:
        """On the delivery's own channel, so that the reply reaches the broker before the ack; where that is gone, on another."""
        now = self._clock()
        patience = 1.0 if request.deadline is None else max(1.0, request.deadline / 1000 - now)
        try:
            await self._transport.send(answer.evolve(timestamp=int(now)), reply_address(reply_to), timeout=patience, via=via)
        except BusError as error:
            log.warning("a reply could not be sent", extra={"type": request.type, "why": str(error)})
            if isinstance(error, InvalidArgument) and answer.error is None:
                fault = self._unsendable(request, error).evolve(authorization=answer.authorization)
                await self._answer(request, reply_to, fault, via)
            elif isinstance(error, ConnectionLost) and via is not None:
                await self._answer(request, reply_to, answer, None)

    async def _settle(self, envelope: Envelope, outcome: Outcome) -> bool:
        now = self._now()
        first_failed = envelope.headers.get(FIRST_FAILED, now)
        lasted = (now - first_failed) / 1000 if isinstance(first_failed, int) else 0.0
        match settle(outcome.error, envelope.attempt, self._endpoint.retry, lasted=lasted):
            case Ack():
                return outcome.reply is None or await self._report_result(envelope, outcome.reply)
            case _ if isinstance(outcome.error, UnknownKey) and PARKED not in envelope.headers:
                return await self._park(envelope, now)
            case Retry(delay=delay):
                address = retry_address(self._service, tier_for(delay), self._endpoint.queue)
                headers = since_first_failure(envelope.headers, now)
                copied = await self._copy(envelope.evolve(attempt=envelope.attempt + 1, headers=headers), address)
                if copied:
                    await self._tell_of_retry(envelope, outcome, delay)
                return copied
            case DeadLetter() as decision:
                return await self._bury(envelope, decision, outcome)
            case Requeue():
                return False

    def _signed(self, answer: Envelope, request: Envelope, outcome: Outcome) -> Envelope:
        """With a token for who asked. Who was not let in could be anyone: he gets a proof, which serves for nothing else."""
        answer = self._cipher.seal(answer)
        if self._gate is None:
            return answer
        if outcome.refused:
            return self._gate.signer.proven(answer, request.source, refused=request)
        return answer.evolve(authorization=self._gate.signer.authorization(request.source, answers=True))

    async def _park(self, envelope: Envelope, now: int) -> bool:
        """Its key may be a new one: it comes again, as the same attempt, when the keys have been looked at."""
        facts = {"type": envelope.type, "queue": self._endpoint.queue, "message_id": envelope.id}
        log.warning("its key is not known yet; the message waits", extra=facts)
        parked = envelope.evolve(headers={PARKED: now, **envelope.headers})
        return await self._copy(parked, retry_address(self._service, tier_for(REFETCH_INTERVAL), self._endpoint.queue))

    async def _bury(self, envelope: Envelope, decision: DeadLetter, outcome: Outcome) -> bool:
        queue = self._endpoint.queue
        error = type(outcome.error or Cancelled()).__name__
        headers = fault_headers(envelope, decision, error, queue=queue, now=self._now(), worker=self._worker)
        if not await self._copy(envelope.evolve(headers=headers), dead_letter_address(queue)):
            return False
        facts = {"type": envelope.type, "queue": queue, "message_id": envelope.id, "code": decision.code, "why": decision.reason}
        log.error("dead-lettered", extra=facts)
        if envelope.traffic == "job" and self._may_tell(envelope, outcome):
            failure, again = self._failure(envelope, outcome), not outcome.refused
            if not await self._report_result(envelope, failure, again=again) and again:
                self._offer_later(envelope, failure)  # nothing else brings it: the job does not go back
        return True

    def _may_tell(self, envelope: Envelope, outcome: Outcome) -> bool:
        """Whether there is an answer: where a message that was not let in wants it is to be judged, too."""
        return not outcome.refused or self._gate is None or self._gate.may_tell(envelope)

    def _failure(self, envelope: Envelope, outcome: Outcome) -> Envelope:
        return error_reply(envelope, outcome.error or Cancelled(), source=self._service)

    def _unsendable(self, envelope: Envelope, error: InvalidArgument) -> Envelope:
        """What is said instead of an answer that is too large; its own fault, and not the asker's."""
        fault = FailedPrecondition(f"the answer could not be sent: {error}", maybe_executed=True)
        return error_reply(envelope, fault, source=self._service)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _stamped(self, update: Envelope, job: Envelope) -> Envelope:
        """As it is sent now. It carries a proof, and no token: the job's submitter may be anyone until the job was let in."""
        update = self._cipher.seal(update.evolve(timestamp=int(self._clock())))
        refused = job if update.error is not None else None
        return update if self._gate is None else self._gate.signer.proven(update, job.source, refused=refused)

    # --- copies ----------------------------------------------------------------------------------------------------

    async def _copy(self, envelope: Envelope, address: Address) -> bool:
        """Send a confirmed copy, which has no deadline but this one's own, and does not expire in its queue."""
        try:
            outcome = await self._transport.send(envelope.evolve(deadline=None, expiration=None), address, timeout=COPY_TIMEOUT)
        except BusError as error:
            await self._hindered(address, str(error))
            if isinstance(error, NEVER):
                raise
            return False
        return isinstance(outcome, Accepted) or await self._hindered(address, outcome.reason)

    async def _hindered(self, address: Address, why: str) -> bool:
        """A copy was not taken: see that its queue exists."""
        facts = {"exchange": address.exchange, "queue": self._endpoint.queue, "why": why}
        log.error("a copy was not taken", extra=facts)
        try:
            async with asyncio.timeout(COPY_TIMEOUT):
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
            taken = await self._offer(job, update)
        except InvalidArgument as error:
            return await self._report_result(job, self._unsendable(job, error), again=again)
        except PermissionDenied as error:  # as it would be each time, and each time it costs the channel on which all others publish
            return self._untold(update, error)
        except BusError:
            return False
        if again and not taken:
            self._offer_later(job, update)
        return True

    def _offer_later(self, job: Envelope, update: Envelope) -> None:
        if len(self._offers) < MOST_OFFERS:
            offer = asyncio.get_running_loop().create_task(self._offer_again(job, update))
            self._offers.add(offer)
            offer.add_done_callback(self._offers.discard)

    async def _offer(self, job: Envelope, update: Envelope) -> bool:
        address = update_address(job.reply_to or "", mandatory=True)
        return isinstance(await self._transport.send(self._stamped(update, job), address, timeout=COPY_TIMEOUT), Accepted)

    async def _offer_again(self, job: Envelope, update: Envelope) -> None:
        loop = asyncio.get_running_loop()
        ends, attempt = loop.time() + RESULT_PATIENCE, 0
        while loop.time() < ends:
            attempt += 1
            await asyncio.sleep(backoff(attempt))
            try:
                if await self._offer(job, update):
                    return
            except PermissionDenied as error:
                self._untold(update, error)
                return
            except BusError as error:
                log.debug("a result could not be offered", extra={"why": str(error)})
        log.info("nobody took a job's result", extra={"type": update.type, "job": update.in_reply_to})

    def _untold(self, update: Envelope, error: PermissionDenied) -> bool:
        """The job is done all the same."""
        facts = {"type": update.type, "job": update.in_reply_to, "why": str(error)}
        log.error("a job's submitter may not be told; is the broker's user older than the grants?", extra=facts)
        return True

    async def _tell_of_retry(self, job: Envelope, outcome: Outcome, delay: float) -> None:
        report = self.reporter(job)
        if report is None or outcome.error is None:
            return
        why = safe_reason(outcome.error)
        note = f"attempt {job.attempt} of {self._endpoint.retry.attempts} failed, the next is in {TIERS[tier_for(delay)]:.3g} s: {why}"
        await report(Progress(progress=0, note=note, error=code_of(outcome.error)))

    def reporter(self, job: Envelope) -> Callable[[Progress], Coroutine[Any, Any, None]] | None:
        """What sends a job's progress; None where nobody waits for it."""
        reply_to = job.reply_to
        if job.traffic != "job" or reply_to is None:
            return None

        async def report(progress: Progress) -> None:
            try:
                update = self._stamped(progress_update(job, progress, source=self._service), job)
                await self._transport.send(update, update_address(reply_to, mandatory=False), timeout=PROGRESS_TIMEOUT)
            except BusError as error:
                log.debug("progress dropped", extra={"why": str(error)})

        return report
