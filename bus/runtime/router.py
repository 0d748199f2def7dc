"""The router of a service, which calls the handler of each message's contract.

Source: Message Dispatcher in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from bus.contracts.contract import Contract, Event, JobClass, Kind, RequestClass, decode
from bus.contracts.limits import check_seconds
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import (
    ContractError,
    ContractViolation,
    FailedPrecondition,
    InvalidResult,
    Unimplemented,
)
from bus.messaging.context import Sender, current
from bus.messaging.envelope import Envelope
from bus.messaging.failure_origin import blame_handler, blame_message
from bus.messaging.resilience.adaptive_limit import AdaptiveLimit
from bus.messaging.resilience.dependency import Dependency
from bus.messaging.resilience.rate_limit import RateLimit
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import event_queue, job_queue, request_queue
from bus.runtime.declaration_checks import (
    check_concurrency,
    check_retry,
    check_subscription,
    check_transactional,
    contract_of_kind,
    require_name,
)
from bus.runtime.dependency_checks import check_dependency, check_rate
from bus.runtime.endpoint import NO_POLICIES, Endpoint, HandlerPolicies
from bus.runtime.handler_call import handler_call
from bus.runtime.handler_result import encode_result
from bus.runtime.handler_signature import Registrar, read_signature
from bus.runtime.inclusion import RouterNode
from bus.runtime.lifespan import Lifespan, check_lifespan, no_lifespan

__all__ = ["Router"]

Q = TypeVar("Q")
R = TypeVar("R")
E = TypeVar("E", bound=Event)

REQUEST_CONCURRENCY = 16
"""The default concurrency of request handlers. They mostly wait for other services."""
EVENT_CONCURRENCY = 16
"""The default concurrency of event handlers."""
JOB_CONCURRENCY = 1
"""The default concurrency of job handlers, because one job may use a whole processor."""
JOB_TIMEOUT = 600.0
"""The default timeout of one attempt of a job, in seconds.

It is shorter than RabbitMQ's default consumer timeout of 30 minutes. After the consumer timeout,
the broker would deliver the job again while its handler still runs.
"""
EVENT_TIMEOUT = 60.0
"""The default timeout of one attempt to handle an event, in seconds."""


class Router:
    """The handlers of one service, and the resources that the handlers share.

    >>> router = Router("billing")

    >>> @router.request(GetInvoice)
    ... async def get_invoice(request: GetInvoice, context: Context) -> Invoice:
    ...     return await context.state.invoice(request.number)

    A handler is a coroutine function. Its first parameter is the message. One parameter may have
    the annotation `Context`, and one of a transactional handler `AsyncSession`. Each further
    parameter must have a default or `Depends`.
    """

    def __init__(self, name: str, *, lifespan: Lifespan | None = None) -> None:
        """Create a router without handlers.

        Args:
            name: The name of the service. The names of its contracts begin with this name.
            lifespan: A function that returns an async context manager. The bus enters the context
                manager before the first message, and exits it after the last message. Handlers read
                the value that the context manager yields as `context.state`. If the function has a
                parameter with the annotation `Bus` or `Sender`, it receives the connected bus.

        Raises:
            ContractError: `name` is not a valid service name. Or the lifespan is not a function
                that returns an async context manager, or has another required parameter.
        """
        require_name(name, "service")
        self.name = name
        self._node = RouterNode(name, no_lifespan)
        self.endpoints = self._node.endpoints
        """The endpoints of this router and of its included routers, by the name of the queue."""
        if lifespan is not None:
            self.lifespan = lifespan

    def request(
        self,
        contract: RequestClass[Q, R],
        *,
        concurrency: int | AdaptiveLimit = REQUEST_CONCURRENCY,
        rate: RateLimit | None = None,
        dependency: str | Dependency | None = None,
        failures: tuple[type[Exception], ...] | None = None,
    ) -> Registrar[Q, R]:
        """Return a decorator that registers the handler of a request.

        The caller receives the handler's result as the reply. If the handler raises one of the
        bus's errors, the caller receives the same error. The service does not retry a request,
        because only the caller knows whether a retry is useful.

        Args:
            contract: The class of the request, which belongs to this service.
            concurrency: The maximum number of requests that this process handles at the same time.
                An `AdaptiveLimit` adapts the number to the duration of the handler.
            rate: The rate limit for each calling service in this process. A request above the limit
                is refused with `ResourceExhausted`.
            dependency: The name of a system outside the bus without which the handler cannot
                succeed, or a `Dependency` with further values.
            failures: The classes of the errors that the handler raises if the dependency is down.
                Required beside a name. While the dependency is down, requests are refused with
                `Unavailable`.

        Raises:
            ContractError: The class has no contract, is not a request, or belongs to another
                service. Or `concurrency` is not a whole number from 1 to 65535. Or the rate limit
                or the dependency is not valid. The decorator raises this error if the handler's
                parameters are invalid, or if the request already has a handler. It also raises the
                error if another handler gives the dependency other values.
        """
        owned = self._require_own(contract, "request")
        return self._make_registrar(
            owned,
            request_queue(owned),
            concurrency,
            RetryPolicy(attempts=1),
            policies=HandlerPolicies(
                dependency=check_dependency(dependency, failures, owned.type),
                rate=check_rate(rate, owned.type),
            ),
        )

    def job(  # noqa: PLR0913 - the choices of a user, each a keyword
        self,
        contract: JobClass[Q, R],
        *,
        retry: RetryPolicy | None = None,
        timeout: float = JOB_TIMEOUT,
        concurrency: int | AdaptiveLimit = JOB_CONCURRENCY,
        dependency: str | Dependency | None = None,
        failures: tuple[type[Exception], ...] | None = None,
        transactional: bool = False,
    ) -> Registrar[Q, R]:
        """Return a decorator that registers the handler of a job.

        The submitter receives the handler's result, or the error of the last attempt. After a
        failed attempt, the retry policy and the error decide whether the job is retried or
        dead-lettered. With a store, it becomes a failed row instead of a dead letter.

        Args:
            contract: The class of the job, which belongs to this service.
            retry: The retry policy. The default is the retry policy of the contract.
            timeout: Seconds for one attempt. If the handler takes longer, the handler is cancelled
                and the attempt fails.
            concurrency: The maximum number of jobs that this process handles at the same time.
                An `AdaptiveLimit` adapts the number to the duration of the handler.
            dependency: The name of a system outside the bus without which the handler cannot
                succeed, or a `Dependency` with further values.
            failures: The classes of the errors that the handler raises if the dependency is down.
                Required beside a name. After some of these errors in a row, the messages wait until
                the dependency is up. No failure by the dependency uses an attempt then.
            transactional: True to let the handler write to the store in a transaction. The
                parameter with the annotation `AsyncSession` of `sqlalchemy.ext.asyncio` receives
                the session. The bus commits it together with the fact that the job is handled,
                so the writes have exactly one effect. The service requires a store (`BUS_STORE`).

        Raises:
            ContractError: The class has no contract, is not a job, or belongs to another service.
                Or the concurrency, the timeout, the retry policy or the dependency is not valid.
                The decorator raises this error if the handler's parameters are invalid, or if the
                job already has a handler. It also raises the error if another handler gives the
                dependency other values.
        """
        owned = self._require_own(contract, "job")
        return self._make_registrar(
            owned,
            job_queue(owned),
            concurrency,
            check_retry(retry, owned),
            timeout=check_seconds(timeout, "timeout", owned.type, error=ContractError),
            policies=HandlerPolicies(dependency=check_dependency(dependency, failures, owned.type)),
            is_transactional=check_transactional(transactional, owned),
        )

    def event(  # noqa: PLR0913 - the choices of a user, each a keyword
        self,
        contract: type[E],
        *,
        subscription: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float = EVENT_TIMEOUT,
        concurrency: int | AdaptiveLimit = EVENT_CONCURRENCY,
        dependency: str | Dependency | None = None,
        failures: tuple[type[Exception], ...] | None = None,
        transactional: bool = False,
    ) -> Registrar[E, None]:
        """Return a decorator that registers a handler of an event.

        The event can belong to this service or to another service. Each subscription has its own
        queue, and receives every event of the contract. After a failed attempt, the retry policy
        and the error decide whether the event is retried or dead-lettered.

        Args:
            contract: The class of the event.
            subscription: The name of the subscription, in lower-case letters, digits and dashes. If
                one event has several handlers, each handler requires a different name.
            retry: The retry policy. The default is the retry policy of the contract.
            timeout: Seconds for one attempt. If the handler takes longer, the handler is cancelled
                and the attempt fails.
            concurrency: The maximum number of events that this process handles at the same time.
                An `AdaptiveLimit` adapts the number to the duration of the handler.
            dependency: The name of a system outside the bus without which the handler cannot
                succeed, or a `Dependency` with further values.
            failures: The classes of the errors that the handler raises if the dependency is down.
                Required beside a name. After some of these errors in a row, the messages wait until
                the dependency is up. No failure by the dependency uses an attempt then.
            transactional: True to let the handler write to the store in a transaction. The
                parameter with the annotation `AsyncSession` of `sqlalchemy.ext.asyncio` receives
                the session. The bus commits it together with the fact that the event is handled,
                so the writes have exactly one effect. The service requires a store (`BUS_STORE`).

        Raises:
            ContractError: The class has no contract, or is not an event. Or the subscription, the
                concurrency, the timeout, the retry policy or the dependency is not valid. The
                decorator raises this error if the handler's parameters are invalid, or if the
                subscription already has a handler. It also raises the error if another handler
                gives the dependency other values.
        """
        event = contract_of_kind(contract, "event")
        check_subscription(subscription, event)
        queue = event_queue(self.name, event, subscription)
        return self._make_registrar(
            event,
            queue,
            concurrency,
            check_retry(retry, event),
            timeout=check_seconds(timeout, "timeout", event.type, error=ContractError),
            subscription=subscription,
            policies=HandlerPolicies(dependency=check_dependency(dependency, failures, event.type)),
            is_transactional=check_transactional(transactional, event),
        )

    def include(self, router: "Router") -> None:
        """Serve the handlers of another router of the same service, too.

        Use it to write the handlers of a service in several modules, each with its own router.
        Handlers that are registered in the included router later are included as well. The lifespan
        of the included router is entered after the lifespan of this router, and exited before it.
        A handler reads the state of the router that registered it as `context.state`. If that
        router has no lifespan, the handler reads the state of the including router.

        Args:
            router: The router to include.

        Raises:
            ContractError: The router belongs to another service, is already included, or includes
                this router. Or both routers have a handler of the same queue. Or this router is
                served now.
        """
        if not isinstance(router, Router):
            raise ContractError(
                f"{self.name}: include requires a Router, not a value of type "
                f"{type(router).__name__}. Import the router of the other module."
            )
        self._node.include(router._node)  # noqa: SLF001 - the node of another router

    @property
    def lifespan(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        """The function that returns the context manager of the router's resources."""
        return self._node.lifespan

    @lifespan.setter
    def lifespan(self, lifespan: Lifespan) -> None:
        check_lifespan(lifespan)
        self._node.lifespan = lifespan

    @property
    def has_lifespan(self) -> bool:
        """True if this router or an included router has a lifespan."""
        return any(node.lifespan is not no_lifespan for node in self._node.members())

    def opened(self, bus: Sender) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        """Return a context manager that enters the lifespans of this and the included routers.

        Its block gets the state of each endpoint, by the name of the queue. Inside the block, the
        routers refuse new handlers.

        Args:
            bus: The bus, which lifespans can use.
        """
        return self._node.opened(bus)

    async def __call__(self, envelope: Envelope) -> Envelope | None:
        """Decode a message, call its handler, and return the encoded reply.

        Args:
            envelope: The message. Its `queue` is the queue that delivered the message.

        Returns:
            The reply to a request, the result of a job, or None for an event.

        Raises:
            FailedPrecondition: No message is being handled.
            Unimplemented: The router has no handler for this message type from this queue.
            ContractViolation: The payload does not match the contract.
            InvalidResult: The handler's result is not an instance of the class in the contract, or
                cannot be encoded. The result of an event's handler is not None.
        """
        context = current.get()
        if context is None:
            raise FailedPrecondition(
                "the router was called while no message is handled. Serve it with Bus.serving."
            )
        endpoint = self.endpoints.get(envelope.queue or "")
        if endpoint is None or endpoint.contract.type != envelope.type:
            raise Unimplemented(f"{self.name} does not serve {envelope.type} from {envelope.queue}")
        try:
            message = decode(endpoint.contract.model, envelope.body, subject=envelope.type)
        except ContractViolation as error:
            blame_message(error, decode)
            error.stated_executed = "no"  # the handler has not begun
            raise
        result = await (
            endpoint.function(message, context)
            if endpoint.wants_context
            else endpoint.function(message)
        )
        if endpoint.contract.kind == "event" and result is None:
            return None
        try:
            return encode_result(envelope, endpoint.contract, result, self.name)
        except InvalidResult as error:
            blame_handler(error, endpoint.function)
            raise

    @property
    def contracts(self) -> tuple[Contract, ...]:
        """The contracts of all endpoints, in the order of their registration."""
        return tuple(endpoint.contract for endpoint in self.endpoints.values())

    def topology(
        self, *, quorum_requests: bool = False, lasting_requests: bool = False
    ) -> dict[str, tuple[Queue, Topology]]:
        """Return the queue of each endpoint, and the topology that the queue requires.

        The keys are the names of the queues.

        Args:
            quorum_requests: True if the queues of requests are quorum queues.
            lasting_requests: True if the broker keeps the queues of requests that have no consumer.
        """
        requests = {"quorum_requests": quorum_requests, "lasting_requests": lasting_requests}
        return {
            name: endpoint.topology(self.name, **requests)
            for name, endpoint in self.endpoints.items()
        }

    def _require_own(self, model: Any, kind: Kind) -> Contract:
        contract = contract_of_kind(model, kind)
        if contract.service != self.name:
            raise ContractError(
                f"{contract.type} belongs to the service {contract.service!r}, but this router "
                f"belongs to {self.name!r}. Register the handler in the router of "
                f"{contract.service!r}."
            )
        return contract

    def _make_registrar(  # noqa: PLR0913 - the attributes of an endpoint
        self,
        contract: Contract,
        queue: str,
        concurrency: int | AdaptiveLimit,
        retry: RetryPolicy,
        *,
        timeout: float | None = None,
        subscription: str | None = None,
        policies: HandlerPolicies = NO_POLICIES,
        is_transactional: bool = False,
    ) -> Registrar[Any, Any]:
        count, adaptive = check_concurrency(concurrency, contract)

        def register(function: Any) -> Any:
            handler = function.__func__ if isinstance(function, staticmethod) else function
            signature = read_signature(handler, contract, is_transactional=is_transactional)
            call, wants_context = handler_call(handler, signature)
            self._node.add(
                Endpoint(
                    contract=contract,
                    function=call,
                    wants_context=wants_context,
                    queue=queue,
                    concurrency=count,
                    adaptive=adaptive,
                    retry=retry,
                    timeout=timeout,
                    subscription=subscription,
                    policies=policies,
                    is_transactional=is_transactional,
                )
            )
            return function

        return register
