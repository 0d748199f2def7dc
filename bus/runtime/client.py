"""The client of a service: typed `request`, `publish` and `submit`.

Source: Messaging Gateway in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import TypeVar, cast, overload

from bus.contracts.contract import (
    Contract,
    Event,
    Job,
    Kind,
    Message,
    Request,
    encode,
)
from bus.errors import (
    BusError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotServed,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    UnknownKey,
)
from bus.messaging.body_limit import unread_reply
from bus.messaging.call_limits import CallLimits
from bus.messaging.criticality import criticality_header
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.error_state import mark_as_broker_error, mark_as_call_error
from bus.messaging.fallback import check_fallback, is_covered, reply_of
from bus.messaging.handler import Handler, Middleware, compose
from bus.messaging.instruments import FALLBACKS
from bus.messaging.labels import message_facts, message_label, one_line
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.ports.liveness import Liveness
from bus.messaging.ports.transport import (
    Accepted,
    ConsumerHandle,
    Delivery,
    Nacked,
    PublishOutcome,
    Returned,
)
from bus.messaging.send_time import current_send
from bus.messaging.sent_time import SENT_AT
from bus.messaging.timers import loop_time
from bus.messaging.topology.addresses import address_of
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.declarations import reply_topology
from bus.messaging.topology.names import reply_queue, service_of
from bus.middleware.stacks import call_policies, with_security
from bus.runtime.broker_watch import BrokerWatch
from bus.runtime.cache_access import cache_access
from bus.runtime.client_arguments import check_publisher, check_wait, require_kind, seconds_of
from bus.runtime.error_subject import name_message
from bus.runtime.job_handle import PendingJob
from bus.runtime.pending_replies import PendingReplies
from bus.runtime.pending_request import check_reply, decode_reply
from bus.runtime.sent_history import sent_history
from bus.runtime.sent_measures import send_meter
from bus.runtime.service_runtime import ServiceRuntime
from bus.runtime.service_waits import ServiceWaits
from bus.security.anonymous import AnonymousIdentity

__all__ = ["Client"]

log = logging.getLogger("bus.client")

R = TypeVar("R", bound=Message | None)

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
TOO_MANY_CHECKS = (
    "the signing key is not in the receiver's BUS_JWKS, and too many replies with unknown keys "
    "wait for the next read of it"
)
MAX_CHECKS, MAX_CHECKED_BYTES = 100, 16 * 1024 * 1024
"""Maximum number of replies that wait for a read of the public keys, and of bytes in their bodies.

Any client of the broker can send replies with an unknown key, and a slow read can take seconds.
"""


class Client:
    """The client of one service. It sends the service's messages, and receives the replies."""

    def __init__(self, runtime: ServiceRuntime, layers: Sequence[Middleware]) -> None:
        """Create a client that is not started.

        Args:
            runtime: The objects that all parts of this process share, such as the transport.
            layers: The middlewares of the client. The client adds the policies of the destination
                and the security policies inside them.
        """
        self._service = runtime.service
        self._instance = runtime.instance
        self._reply_to = reply_queue(runtime.service, runtime.instance)
        self._transport = runtime.transport
        self._settings = runtime.settings
        registry = runtime.settings.registry
        self._default_limits = runtime.settings.request_timeout, registry.default_limits()
        self._limits = {
            service: (runtime.settings.timeout_of(service), limits)
            for service, limits in registry.limits().items()
        }
        """Seconds that a request waits by default, and the limits of calls, by service."""
        self._clock = runtime.clock
        self._destinations = runtime.destinations
        self._inner: dict[str, Handler] = {}
        """The policies of a destination, the security policies and the send, by message type."""
        self._stack = compose(layers, self._pass_to_policies)
        # At the innermost place, where the ids and the trace of a message are complete.
        self._remember = sent_history(runtime.history, runtime.clock)
        self._measure = send_meter(runtime.meter, runtime.clock)
        self._security = runtime.security
        self._verifier = runtime.security.identity.verifier
        self._checks: dict[asyncio.Task[None], int] = {}
        """The tasks that check replies again, each with the number of bytes in the body."""
        self._consumer: ConsumerHandle | None = None
        self.replies = PendingReplies(runtime.meter)
        self._watch = (
            BrokerWatch(self._transport, self.replies.is_waiting)
            if isinstance(self._transport, Liveness)
            else None
        )
        """None if the transport cannot tell whether the broker answers."""
        self.waits = ServiceWaits(self._call_service_again, self._remaining)
        self._cache = cache_access(runtime, self.waits.ids.__contains__)

    async def start(self) -> ConsumerHandle:
        """Start to receive replies, and return the consumer of the reply queue."""
        self.replies.start()
        topology = reply_topology(self._service, self._instance)
        is_anonymous = self._security.identity.is_anonymous
        spec = ConsumerSpec(
            queue=topology.queues[0],
            topology=topology,
            prefetch=0,
            acks=False,
            max_body_bytes=self._settings.max_message,
        )
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
            self._recheck_soon(envelope)
        else:
            self._reject_reply(envelope, error)

    def _dispatch(self, reply: Envelope) -> None:
        """Decrypt a reply, and pass it to the call or job that waits for it."""
        if reply.unread_bytes is not None:
            self.replies.dispatch(unread_reply(reply))
            return
        try:
            reply = self._security.cipher.decrypt(reply)
        except BusError as error:
            log.warning(
                "%s could not be decrypted: %s",
                message_label(reply),
                one_line(str(error)),
                extra=message_facts(reply, why=str(error)),
            )
            self.replies.record_rejected_reply(reply, str(error))
        else:
            self.replies.dispatch(reply)

    def _verify_reply(self, reply: Envelope) -> BusError | None:
        """Return the reason why a reply is invalid, or None if it is valid.

        A reply without a pending call or job is not verified, because it is dropped as late.
        """
        request = self.replies.find_request(reply)
        if request is None:
            return None
        return self._verifier.check_reply(
            reply, service_of(request.type), is_job=request.is_job, proofs=request.proofs
        )

    def _reject_reply(self, reply: Envelope, error: BusError) -> None:
        # The proof signs a digest of the body, so it cannot be checked if the body was dropped.
        if reply.unread_bytes is not None and reply.proof is not None:
            error = FailedPrecondition(reply.fault or "")
        self._verifier.record_rejection(reply, error)
        self.replies.record_rejected_reply(reply, str(error))

    def _recheck_soon(self, reply: Envelope) -> None:
        """Start a task that checks a reply again, unless too many replies wait for that.

        A single reply can be larger than `MAX_CHECKED_BYTES`.
        """
        size = len(reply.body)
        if self._checks and (
            len(self._checks) >= MAX_CHECKS or sum(self._checks.values()) + size > MAX_CHECKED_BYTES
        ):
            self._reject_reply(reply, Unauthenticated(TOO_MANY_CHECKS))
            return
        check = asyncio.get_running_loop().create_task(self._recheck_reply(reply))
        self._checks[check] = size
        check.add_done_callback(self._checks.pop)

    async def _recheck_reply(self, reply: Envelope) -> None:
        """Fetch the public keys, and then verify a reply again whose signing key was unknown."""
        await self._verifier.refresh_keys()
        error = self._verify_reply(reply)
        if error is None:
            self._dispatch(reply)
        else:
            self._reject_reply(reply, error)

    @overload
    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: R | None = None,
    ) -> R: ...
    @overload
    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: Callable[[BusError], R | None],
    ) -> R: ...
    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: R | Callable[[BusError], R | None] | None = None,
    ) -> R:
        """Send a request, and wait for its reply.

        If the connection is lost, the bus sends an idempotent request again until `timeout` has
        passed. The bus retries a request after a temporary error of the service if no handler has
        begun it, or if its contract is idempotent. A retry budget limits the number of retries.

        Args:
            request: The request to send.
            timeout: Seconds to wait for the reply. The default is the timeout of the service in the
                setting `services`, or the setting `request_timeout`. Inside the handler of a
                request, the deadline of that request applies as well.
            wait_for_service: True to wait within the timeout until a service serves the request.
                The request is published again after `NotServed`, at most once a second.
            fallback: A reply to return if the service or the broker does not work, or a function
                that receives the error and returns a reply. It replaces errors with the code
                `unavailable`, `resource_exhausted` or `deadline_exceeded`.

        Returns:
            The reply, of the type that the request's class specifies.

        Raises:
            BusError: The service answered with an error. Either the handler raised the error, or a
                check before the handler failed. The error code in the reply selects the subclass.
                A handler may have acted before it raised the error.
            ConfigurationError: `timeout` is not a finite number of seconds from 0. Or
                `wait_for_service` is not a boolean.
            ContractError: The class has no contract, or is not a request. Or the fallback is not a
                reply of the contract.
            ContractViolation: A value of the request is invalid for its field, so the request was
                not sent. Or the reply does not match its contract, and `maybe_executed` is true.
            InvalidArgument: The request is larger than `max_message`, or its headers are too long.
            PermissionDenied: This service has no grant for the contract. Or the broker does not
                allow this service's user to publish to the exchange.
            FailedPrecondition: The payload must be encrypted, but no encryption key is set. Or no
                signing key of this service is valid now.
            NotServed: No queue accepts the request. No service serves this version of the contract,
                or the last one stopped over a minute ago. This error does not wait for `timeout`,
                unless `wait_for_service` is true.
            DeadlineExceeded: No reply arrived in time. `maybe_executed` is true if the request may
                have been sent.
            ConnectionLost: The connection was lost before the reply arrived. `maybe_executed` is
                true if the request may have been sent.
            ResourceExhausted: The broker refused the request, because the queue is full or has no
                leader. `maybe_executed` is true. Or too many requests of this process to the
                service wait already (`max_in_flight` and `max_waiting` of the service): the
                request was not sent.
            Unavailable: The bus is not open, or is not connected to the broker. The request was
                not sent.
            Internal: A middleware of the client returned no reply.
            Unknown: This version of the bus does not have the error code of the reply. Or the type
                of the reply is not the type in the contract, and `maybe_executed` is true.
        """
        contract = require_kind(request, "request")
        if fallback is not None:
            check_fallback(fallback, contract)
        limits: CallLimits | None
        seconds, limits = self._limits.get(contract.service, self._default_limits)
        started = perf_counter()
        try:
            if timeout is not None:
                seconds, limits = seconds_of(timeout, seconds, contract), limits.without_setting
            envelope = self._envelope(contract, request, seconds, limits)
            if wait_for_service is False:
                reply = await self._stack(envelope)
            else:
                check_wait(wait_for_service, contract)
                with self.waits.waiting(envelope.id, seconds):
                    reply = await self._stack(envelope)
            if reply is None:
                raise Internal(  # noqa: TRY301 - its outcome is measured below
                    "a middleware of the client stack returned None, not a reply. "
                    "Return the result of the inner handler in each middleware."
                )
            decoded = cast("R", decode_reply(contract, reply))
        except BaseException as error:  # such as the cancellation of the caller
            self._measure(contract, started, error)
            if isinstance(error, BusError):
                mark_as_call_error(error)
                name_message(error, contract.type)
                if fallback is not None and is_covered(error):
                    self._report_fallback(contract, error)
                    return reply_of(fallback, contract, error)
            raise
        self._measure(contract, started, None)
        return decoded

    def _report_fallback(self, contract: Contract, error: BusError) -> None:
        self._destinations.meter.count(FALLBACKS, (contract.name, str(contract.version)))
        if log.isEnabledFor(logging.DEBUG):
            facts = {"type": contract.type, "code": error.code, "origin": error.origin}
            log.debug(
                "%s: the caller uses its fallback (%s)", contract.type, error.code, extra=facts
            )

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Publish an event, and wait until the broker has confirmed it.

        The bus sends the event again if the connection is lost, or if the broker refuses the event.
        All attempts have the same message id. They end when `timeout` has passed.

        Args:
            event: An event of this service.
            timeout: Seconds to wait for the confirm. The default is the setting `publish_timeout`.

        Raises:
            ConfigurationError: `timeout` is not a finite number of seconds from 0.
            ContractError: The class has no contract, or is not an event. Or the event belongs to
                another service.
            ContractViolation: A value of the event is invalid for its field.
            InvalidArgument: The event is larger than `max_message`, or its headers are too long.
            PermissionDenied: This service has no grant for the contract. Or the broker does not
                allow this service's user to publish to the exchange.
            FailedPrecondition: The payload must be encrypted, but no encryption key is set. Or no
                signing key of this service is valid now.
            ResourceExhausted: The broker refused the event until the timeout, because a queue is
                full or has no leader. `maybe_executed` is true.
            DeadlineExceeded: No confirm arrived in time. If `maybe_executed` is true, the event may
                have been published.
            ConnectionLost: The connection was lost before the confirm arrived. If `maybe_executed`
                is true, the event may have been published.
            Unavailable: The broker is not reachable, or has blocked publishers. The event was
                certainly not sent.
        """
        contract = require_kind(event, "event")
        check_publisher(contract, self._service)
        started = perf_counter()
        try:
            await self._stack(self._durable_envelope(contract, event, timeout))
        except BaseException as error:  # as in `request`
            self._measure(contract, started, error)
            if isinstance(error, BusError):
                mark_as_call_error(error)
                name_message(error, contract.type)
            raise
        self._measure(contract, started, None)

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> PendingJob[R]:
        """Submit a job, and wait until the broker has confirmed it.

        The bus sends the job again if the connection is lost, or if the broker refuses the job. All
        attempts have the same message id. They end when `timeout` has passed.

        The returned handle receives updates while this bus is open. Keep a reference to the handle,
        because a handle without references receives no updates.

        Args:
            job: The job to submit.
            timeout: Seconds to wait for the confirm. The default is the setting `publish_timeout`.

        Returns:
            A handle, from which the caller reads the job's progress and result.

        Raises:
            ConfigurationError: `timeout` is not a finite number of seconds from 0.
            ContractError: The class has no contract, or is not a job.
            ContractViolation: A value of the job is invalid for its field.
            InvalidArgument: The job is larger than `max_message`, or its headers are too long.
            PermissionDenied: This service has no grant for the contract. Or the broker does not
                allow this service's user to publish to the exchange.
            FailedPrecondition: The payload must be encrypted, but no encryption key is set. Or no
                signing key of this service is valid now.
            NotServed: No queue accepts the job, because no service has ever served this version of
                the contract.
            ResourceExhausted: The broker refused the job until the timeout, because its queue is
                full or has no leader. `maybe_executed` is true.
            DeadlineExceeded: No confirm arrived in time. If `maybe_executed` is true, the broker
                may have accepted the job.
            ConnectionLost: The connection was lost before the confirm arrived. If `maybe_executed`
                is true, the broker may have accepted the job.
            Unavailable: The broker is not reachable, or has blocked publishers. The job was
                certainly not sent.
        """
        contract, job_id, started = require_kind(job, "job"), None, perf_counter()
        try:
            envelope = self._durable_envelope(contract, job, timeout)
            job_id = envelope.id
            handle: PendingJob[R] = PendingJob(job_id, contract, timeout=self._settings.message_ttl)
            self.replies.track_job(handle)
            await self._stack(envelope)
        except BaseException as error:  # as in `request`
            self._measure(contract, started, error)
            if isinstance(error, BusError):
                mark_as_call_error(error)
                name_message(error, contract.type, job_id)
            raise
        self._measure(contract, started, None)
        return handle

    def _envelope(
        self,
        contract: Contract,
        message: Message,
        timeout: float,
        limits: CallLimits | None = None,
    ) -> Envelope:
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
            limits=limits,
            headers=criticality_header(contract.criticality),
        )

    def _durable_envelope(
        self, contract: Contract, message: Message, timeout: float | None
    ) -> Envelope:
        """Return the envelope of an event or job. `message_ttl` limits the message's lifetime."""
        now = self._clock()
        expires = int((now + self._settings.message_ttl) * 1000)
        seconds = seconds_of(timeout, self._settings.publish_timeout, contract)
        limits = None
        if contract.kind == "job":
            limits = self._limits.get(contract.service, self._default_limits)[1].without_setting
        envelope = self._envelope(contract, message, seconds, limits)
        return envelope.replace(
            expires=expires, headers={**envelope.headers, SENT_AT: int(now * 1000)}
        )

    def _pass_to_policies(self, envelope: Envelope) -> Awaitable[Envelope | None]:
        """Pass a message to the policies of its destination. They are composed at the first call.

        The middlewares of a user are composed only once, because they can have a state.
        """
        handler = self._inner.get(envelope.type)
        if handler is None:
            handler = self._inner[envelope.type] = self._compose_inner(envelope)
        return handler(envelope)

    def _compose_inner(self, envelope: Envelope) -> Handler:
        policies: list[Middleware] = []
        if envelope.role == "request":
            destination = self._destinations.of(envelope.type)
            policies = call_policies(destination, is_sent=self.replies.is_sent, access=self._cache)
            if self._watch is not None:
                self._watch.expect(
                    destination.policy.attempt_timeout or self._timeout_of(envelope.type)
                )
        return compose(with_security(policies, self._security), self._send)

    def _send(self, envelope: Envelope) -> Awaitable[Envelope | None]:
        """Send a message. If the message is a request, also wait for its reply.

        This method is the innermost handler of the client's middlewares.
        """
        if envelope.role != "request":
            return self._publish(envelope)
        if envelope.id in self.waits.ids:
            return self.waits.call(envelope)
        return self._call_service(envelope)

    def close(self) -> None:
        """Fail the pending calls and job handles, because the bus is closed."""
        self.waits.close()
        self.replies.close()
        self._cache.store.clear()
        if self._watch is not None:
            self._watch.close()

    async def _publish(self, envelope: Envelope) -> None:
        kind, started = cast("Kind", envelope.role), perf_counter()
        if kind == "job":
            self.replies.record_job_sent(envelope)
        try:
            outcome = await self._transport.send(
                envelope, address_of(kind, envelope.type), timeout=self._remaining(envelope)
            )
            _raise_unless_accepted(outcome, envelope)
        except BaseException as error:  # such as the cancellation of the caller
            mark_as_broker_error(error)
            self._remember(envelope, started, outcome_of(error))
            raise
        self._remember(envelope, started, OK)

    def _call_service_again(self, envelope: Envelope) -> Awaitable[Envelope]:
        """Send a request that may have waited. Its token could have expired in the meantime."""
        identity = self._security.identity
        if not isinstance(identity, AnonymousIdentity):
            envelope = identity.signer.sign(envelope)
        return self._call_service(envelope)

    async def _call_service(self, envelope: Envelope) -> Envelope:
        started = perf_counter()
        if self._consumer is None or not self._consumer.ready:
            await self._wait_for_reply_consumer(envelope)
        remaining = seconds = self._remaining(envelope)
        limits = envelope.limits
        attempt_timeout = None if limits is None else limits.attempt_timeout
        if attempt_timeout is not None and attempt_timeout < remaining:
            seconds = attempt_timeout
            envelope = envelope.replace(deadline=int((self._clock() + seconds) * 1000))
        # The broker drops the request when this expiration has passed. The deadline header is not
        # enough, because the clock of the server can differ from the clock of this process.
        envelope = envelope.replace(expiration=min(int(seconds * 1000), MAX_EXPIRATION_MS))
        future = self.replies.register(
            envelope.id, remaining, envelope.type, envelope.authorization, limits
        )
        if self._watch is not None and self._watch.timer is None:
            self._watch.start()
        sent_at: float | None = None
        try:
            _raise_unless_accepted(
                await self._transport.send(
                    envelope, address_of("request", envelope.type), timeout=remaining
                ),
                envelope,
            )
            sent_at = self._clock()
            if (send_time := current_send.get()) is not None:
                send_time.at = loop_time()
            self.replies.mark_sent(envelope.id)
            if seconds < remaining:
                # The time without a connection is not part of the attempt.
                self.replies.limit_wait(future, seconds + GRACE_SECONDS)
            reply = await future
        except BaseException as error:  # as above
            if sent_at is None:
                mark_as_broker_error(error)
            elif isinstance(error, DeadlineExceeded):
                self._note_time(envelope, error, sent_at, is_reply=False)
            self._remember(envelope, started, outcome_of(error))
            raise
        finally:
            self.replies.discard(envelope.id, future)
            del future  # a failed future is a reference cycle: its error's traceback has this frame
        self._remember(envelope, started, reply.error or OK)
        try:
            check_reply(reply, envelope.type)  # here, so that the middlewares receive the exception
        except DeadlineExceeded as error:
            self._note_time(envelope, error, sent_at, is_reply=True)
            raise
        return reply

    def _note_time(
        self, envelope: Envelope, error: DeadlineExceeded, sent_at: float, *, is_reply: bool
    ) -> None:
        """Note in a time-out of the service if the attempt had its configured time.

        If the broker did not answer in this time, the service may have had no part in the time-out.
        """
        if error.origin != "service":
            return
        limits, seconds = envelope.limits, self._clock() - sent_at
        configured = None if limits is None else limits.attempt_timeout
        if configured is None:
            configured = self._timeout_of(envelope.type)
        error.had_full_time = seconds >= configured * FULL_PART
        if self._watch is not None:
            now = loop_time()
            if not self._watch.answered_since(now - seconds, now):
                error.had_full_time = False
                if not is_reply:
                    error.origin = "broker"

    def _timeout_of(self, type_: str) -> float:
        """Return the seconds that a request of a type waits by default."""
        return self._limits.get(service_of(type_), self._default_limits)[0]

    async def _wait_for_reply_consumer(self, envelope: Envelope) -> None:
        """Wait until the consumer of the reply queue is ready, before a request is sent."""
        if self._consumer is None:
            raise Unavailable("the client is not started. Use it inside `async with Bus(…)`.")
        try:
            async with asyncio.timeout(self._remaining(envelope)):
                await self._consumer.wait_ready()
        except TimeoutError:
            unconnected = Unavailable(
                f"{envelope.type}: the request was not sent, because the bus is not connected to "
                "the broker. Check that RabbitMQ runs."
            )
            mark_as_broker_error(unconnected)
            raise unconnected from None

    def _remaining(self, envelope: Envelope) -> float:
        """Return the seconds until the deadline of a message."""
        if envelope.deadline is None:
            return self._settings.request_timeout
        return max(0.0, envelope.deadline / 1000 - self._clock())


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
