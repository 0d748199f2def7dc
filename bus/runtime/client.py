"""Messaging Gateway: typed `request`, `publish` and `submit`."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar, cast

from bus.contracts.contract import Contract, Event, Job, Kind, Message, Request, contract_of, encode
from bus.errors import (
    BusError,
    ContractError,
    Internal,
    NotServed,
    ResourceExhausted,
    Unavailable,
    UnknownKey,
)
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.handler import Middleware, compose
from bus.messaging.ports.transport import (
    Accepted,
    ConsumerHandle,
    Delivery,
    Nacked,
    PublishOutcome,
    Returned,
)
from bus.messaging.topology.addresses import address_of
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.declarations import reply_topology
from bus.messaging.topology.names import reply_queue, service_of
from bus.runtime.job_handle import PendingJob
from bus.runtime.pending_replies import PendingReplies
from bus.runtime.pending_request import decode_reply, error_from_reply
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["Client"]

log = logging.getLogger("bus.client")

R = TypeVar("R", bound=Message | None)

MAX_EXPIRATION_MS = 2**32 - 1
"""ms, 49 days. RabbitMQ closes the channel for a much longer one (3.10: 10 years), and all calls on their way are lost with it."""


class Client:
    """Sends the messages of one service, and receives the replies."""

    def __init__(self, runtime: ServiceRuntime, layers: Sequence[Middleware]) -> None:
        """`layers` is the client's stack, with its security."""
        self._service = runtime.service
        self._instance = runtime.instance
        self._reply_to = reply_queue(runtime.service, runtime.instance)
        self._transport = runtime.transport
        self._settings = runtime.settings
        self._clock = runtime.clock
        self._stack = compose(layers, self._send)
        self._security = runtime.security
        self._verifier = runtime.security.identity.verifier
        self._checks: set[asyncio.Task[None]] = set()
        self._consumer: ConsumerHandle | None = None
        self.replies = PendingReplies()

    async def start(self) -> ConsumerHandle:
        """Start to receive replies, and return the consumer of the reply queue."""
        self.replies.start()
        topology = reply_topology(self._service, self._instance)
        is_anonymous = self._security.identity.is_anonymous
        spec = ConsumerSpec(queue=topology.queues[0], topology=topology, prefetch=0, acks=False)
        on_delivery = self._on_unsigned_reply if is_anonymous else self._on_reply
        self._consumer = await self._transport.consume(spec, on_delivery)
        return self._consumer

    def _on_unsigned_reply(self, delivery: Delivery) -> None:
        self._dispatch(delivery.envelope)

    def _on_reply(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        error = self._verify_reply(envelope)
        if error is None:
            self._dispatch(envelope)
        elif isinstance(error, UnknownKey):
            check = asyncio.get_running_loop().create_task(self._recheck_reply(envelope))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        else:
            self._reject_reply(envelope, error)

    def _dispatch(self, reply: Envelope) -> None:
        """Decrypt a reply, and pass it to the call or job that waits for it."""
        try:
            reply = self._security.cipher.decrypt(reply)
        except BusError as error:
            facts = {"type": reply.type, "message_id": reply.id, "why": str(error)}
            log.warning("a reply could not be decrypted", extra=facts)
            self.replies.record_rejected_reply(reply, str(error))
        else:
            self.replies.dispatch(reply)

    def _verify_reply(self, reply: Envelope) -> BusError | None:
        """Return why this is not a valid reply from the service that was called, or None.

        A reply without a pending call is not verified; it is counted as late.
        """
        request = self.replies.find_request(reply)
        if request is None:
            return None
        return self._verifier.check_reply(
            reply, service_of(request.type), is_job=request.is_job, proofs=request.proofs
        )

    def _reject_reply(self, reply: Envelope, error: BusError) -> None:
        self._verifier.record_rejection(reply, error)
        self.replies.record_rejected_reply(reply, str(error))

    async def _recheck_reply(self, reply: Envelope) -> None:
        """Check a reply again after the keys have been fetched: its key can be a new one."""
        await self._verifier.refresh_keys()
        error = self._verify_reply(reply)
        if error is None:
            self._dispatch(reply)
        else:
            self._reject_reply(reply, error)

    async def request(self, request: Request[R], *, timeout: float | None = None) -> R:
        """Ask, and wait for the answer at most `timeout` seconds (default: the setting `request_timeout`).

        Raises what the handler raised, as the class of its code; `NotServed` at once where nobody serves the contract;
        `DeadlineExceeded`; `ConnectionLost` with `maybe_executed`; `Unavailable` where the broker could not be reached.
        """
        contract = _require_kind(request, "request")
        envelope = self._envelope(
            contract, request, self._settings.request_timeout if timeout is None else timeout
        )
        answer = await self._stack(envelope)
        if answer is None:
            raise Internal(f"{contract.type}: a layer of the client stack returned no answer")
        return cast("R", decode_reply(contract, answer))

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Tell; returns when the broker has confirmed, at most after `timeout` seconds (default: `publish_timeout`).

        Raises `ContractError` for another service's event, `Unavailable` where it was surely not sent,
        `DeadlineExceeded` or `ConnectionLost` with `maybe_executed` where that is unknown.
        """
        contract = _require_kind(event, "event")
        if contract.service != self._service:
            raise ContractError(
                f"{contract.type} belongs to {contract.service}; {self._service} cannot publish it"
            )
        await self._stack(self._durable_envelope(contract, event, timeout))

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> PendingJob[R]:
        """Hand over work; returns when the broker has confirmed. Errors as of `publish`, and `NotServed` where no queue takes it."""
        contract = _require_kind(job, "job")
        envelope = self._durable_envelope(contract, job, timeout)
        handle: PendingJob[R] = PendingJob(
            envelope.id, contract, timeout=self._settings.message_ttl
        )
        self.replies.track_job(handle)
        await self._stack(envelope)
        return handle

    def _envelope(self, contract: Contract, message: Message, timeout: float) -> Envelope:
        now = self._clock()
        return Envelope(
            id=new_id(),
            type=contract.type,
            role=contract.kind,
            source=self._service,
            body=encode(message),
            timestamp=int(now),
            deadline=int((now + timeout) * 1000),
            reply_to=None if contract.kind == "event" else self._reply_to,
        )

    def _durable_envelope(
        self, contract: Contract, message: Message, timeout: float | None
    ) -> Envelope:
        """An event or job, which outlives the call that sends it."""
        expires = int((self._clock() + self._settings.message_ttl) * 1000)
        return self._envelope(
            contract, message, self._settings.publish_timeout if timeout is None else timeout
        ).replace(expires=expires)

    def _send(self, envelope: Envelope) -> Awaitable[Envelope | None]:
        """The innermost handler of the client stack: onto the wire, and for a request wait for the answer."""
        return (
            self._call_service(envelope) if envelope.role == "request" else self._publish(envelope)
        )

    async def _publish(self, envelope: Envelope) -> None:
        kind = cast("Kind", envelope.role)
        if kind == "job":
            self.replies.record_job_sent(envelope)
        outcome = await self._transport.send(
            envelope, address_of(kind, envelope.type), timeout=self._remaining(envelope)
        )
        _raise_unless_accepted(outcome, envelope)

    async def _call_service(self, envelope: Envelope) -> Envelope:
        if self._consumer is None or not self._consumer.ready:
            await self._wait_for_reply_consumer(envelope)
        left = self._remaining(envelope)
        # Each attempt has its own: the broker drops what is dead by then, and the server's clock need not be ours.
        envelope = envelope.replace(expiration=min(int(left * 1000), MAX_EXPIRATION_MS))
        answer = self.replies.register(envelope.id, left, envelope.type, envelope.authorization)
        try:
            _raise_unless_accepted(
                await self._transport.send(
                    envelope, address_of("request", envelope.type), timeout=left
                ),
                envelope,
            )
            reply = await answer
        except NotServed as returned:
            raise NotServed(
                f"{envelope.type}: {returned}"
            ) from None  # who noticed the return knows only its id
        finally:
            self.replies.discard(envelope.id, answer)
        error = error_from_reply(reply)
        if error is not None:
            raise error  # here, so that every policy sees it as the exception that it is
        return reply

    async def _wait_for_reply_consumer(self, envelope: Envelope) -> None:
        """A request goes out only while its reply could come back."""
        if self._consumer is None:
            raise Unavailable("the bus is not started; use it inside `async with Bus(…)`")
        try:
            async with asyncio.timeout(self._remaining(envelope)):
                await self._consumer.wait_ready()
        except TimeoutError:
            raise Unavailable(f"{envelope.type}: not sent, no connection to the broker") from None

    def _remaining(self, envelope: Envelope) -> float:
        """Seconds."""
        if envelope.deadline is None:
            return self._settings.request_timeout
        return max(0.0, envelope.deadline / 1000 - self._clock())


def _require_kind(message: Message, kind: Kind) -> Contract:
    contract = contract_of(type(message))
    if contract.kind != kind:
        verb = {"request": "request", "event": "publish", "job": "submit"}[contract.kind]
        raise ContractError(f"{contract.type} is a {contract.kind}; use bus.{verb}(…)")
    return contract


def _raise_unless_accepted(outcome: PublishOutcome, envelope: Envelope) -> None:
    match outcome:
        case Accepted():
            return
        case Returned(reason=reason):
            raise NotServed(
                f"{envelope.type}: nobody serves it ({reason}); start the service that does, in this version"
            )
        case Nacked(reason=reason):
            # Not surely refused: a queue whose leader is lost nacks what it may have stored.
            why = f"{envelope.type}: the broker refused it ({reason}); its queue is full, or has no leader now"
            raise ResourceExhausted(why, maybe_executed=True)
