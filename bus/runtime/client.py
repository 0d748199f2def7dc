"""The client of a service: typed `request`, `publish` and `submit`.

Source: Messaging Gateway in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, TypeVar, cast, overload

from bus.contracts.contract import Contract, Event, Job, Message, Request, encode
from bus.errors import BusError, Internal
from bus.messaging.call_limits import CallLimits
from bus.messaging.criticality import criticality_header
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.error_state import mark_as_call_error
from bus.messaging.fallback import check_fallback, is_covered, reply_of
from bus.messaging.handler import Handler, Middleware, compose
from bus.messaging.instruments import FALLBACKS
from bus.messaging.jobs.questions import CancelJob
from bus.messaging.jobs.records import JobKey
from bus.messaging.ports.transport import ConsumerHandle
from bus.messaging.sent_time import SENT_AT
from bus.messaging.topology.names import reply_queue, service_of
from bus.middleware.stacks import call_policies, with_security
from bus.runtime.cache_access import cache_access
from bus.runtime.client_arguments import check_publisher, check_wait, require_kind, seconds_of
from bus.runtime.error_subject import name_message
from bus.runtime.job_arguments import check_job
from bus.runtime.job_handle import PendingJob
from bus.runtime.jobs.job_asker import JobAsker
from bus.runtime.jobs.job_polls import AFTER_PUSHES, WITHOUT_PUSHES, PollSchedule
from bus.runtime.message_sender import MessageSender
from bus.runtime.pending_replies import PendingReplies
from bus.runtime.pending_request import decode_reply
from bus.runtime.reply_receiver import ReplyReceiver
from bus.runtime.sent_measures import send_meter
from bus.runtime.service_runtime import ServiceRuntime
from bus.runtime.service_waits import ServiceWaits

__all__ = ["Client"]

log = logging.getLogger("bus.client")

R = TypeVar("R", bound=Message | None)


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
        self._reply_to = reply_queue(runtime.service, runtime.instance)
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
        self._measure = send_meter(runtime.meter, runtime.clock)
        self._security = runtime.security
        self.replies = PendingReplies(runtime.meter)
        self._receiver = ReplyReceiver(runtime, self.replies)
        self._sender = MessageSender(runtime, self.replies, self._receiver, self._timeout_of)
        self.waits = ServiceWaits(self._sender.remaining)
        """The requests that wait until a service serves them."""
        self._cache = cache_access(runtime, self.waits.ids.__contains__)

    async def start(self) -> ConsumerHandle:
        """Start to receive replies, and return the consumer of the reply queue."""
        self.replies.start()
        return await self._receiver.start()

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
        contract: Contract | None = None,
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
                The request is published again after `NotServed`, at most once a second. It also
                waits while the circuit breaker of its operation is open.
            fallback: A reply to return if the service or the broker does not work, or a function
                that receives the error and returns a reply. It replaces errors with the code
                `unavailable`, `resource_exhausted` or `deadline_exceeded`.
            contract: The contract of the request. Only a question of the bus itself has it, because
                no class of a user has its contract.

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
            DeadlineExceeded: No reply arrived in time, or `max_in_flight` did not permit the
                request in time. `maybe_executed` is true if the request may have been sent.
            ConnectionLost: The connection was lost before the reply arrived. `maybe_executed` is
                true if the request may have been sent.
            ResourceExhausted: The broker refused the request, because the queue is full or has no
                leader. `maybe_executed` is true. Or too many requests of this process to the
                service wait already (`max_in_flight` and `max_waiting` of the service): the
                request was not sent.
            Unavailable: The bus is not open, or is not connected to the broker. Or the circuit
                breaker of the request's operation is open. The request was not sent. With
                `wait_for_service` this error is raised only after `timeout`.
            Internal: A middleware of the client returned no reply.
            Unknown: This version of the bus does not have the error code of the reply. Or the type
                of the reply is not the type in the contract, and `maybe_executed` is true.
        """
        if contract is None:
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
            handle: PendingJob[R] = self._handle(contract, JobKey(self._service, job_id))
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

    def job(self, job: type[Message], job_id: str, submitter: str | None) -> PendingJob[Any]:
        """Return the handle of a job that any process has submitted. `Bus.job` describes it."""
        contract, key = check_job(job, job_id, submitter or self._service)
        handle: PendingJob[Any] = self._handle(contract, key, WITHOUT_PUSHES)
        self.replies.track_asking(handle)
        return handle

    def _handle(
        self, contract: Contract, key: JobKey, schedule: PollSchedule = AFTER_PUSHES
    ) -> PendingJob[Any]:
        asker = JobAsker(
            contract,
            key,
            ask=self._ask,
            decrypt=self._security.cipher.decrypt,
            max_message=self._settings.max_message,
        )
        return PendingJob(
            key.id,
            contract,
            timeout=self._settings.message_ttl,
            asker=asker,
            schedule=schedule,
        )

    async def _ask(self, contract: Contract, question: Message, timeout: float) -> Message:
        """Send a question of the bus itself. Its contract is not in the catalog."""
        if isinstance(question, CancelJob):
            order = question.to_order(self._service, contract.service)
            signed = self._security.identity.signer.sign_reply(order, contract.service)
            question = question.model_copy(update={"proof": signed.proof})
        request: Any = self.request
        reply: Message = await request(question, timeout=timeout, contract=contract)
        return reply

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
            policies = call_policies(
                destination,
                is_sent=self.replies.is_sent,
                access=self._cache,
                waits=self.waits.layer,
            )
            if self._sender.watch is not None:
                self._sender.watch.expect(
                    destination.policy.attempt_timeout or self._timeout_of(envelope.type)
                )
        return compose(with_security(policies, self._security), self._sender.send)

    def close(self) -> None:
        """Fail the pending calls and job handles, because the bus is closed."""
        self.waits.close()
        self.replies.close()
        self._cache.store.clear()
        if self._sender.watch is not None:
            self._sender.watch.close()

    def _timeout_of(self, type_: str) -> float:
        """Return the seconds that a request of a type waits by default."""
        return self._limits.get(service_of(type_), self._default_limits)[0]
