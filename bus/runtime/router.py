"""The router of a service, which calls the handler of each message's contract.

Source: Message Dispatcher in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol, TypeVar, overload

from bus.contracts.contract import (
    Contract,
    Event,
    JobClass,
    Message,
    RequestClass,
    check_part,
    contract_of,
    decode,
)
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import ContractError, FailedPrecondition, Internal, Unimplemented
from bus.messaging.context import Context, current
from bus.messaging.envelope import Envelope, reply
from bus.messaging.settlement import delays_of
from bus.messaging.topology.declarations import event_topology, job_topology, request_topology
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import (
    dead_letter_queue,
    event_queue,
    job_queue,
    request_queue,
    retry_delay_for,
)
from bus.runtime.dependencies import dependencies_of, inject
from bus.security.keyring import MIN_REFRESH_SECONDS

__all__ = ["Endpoint", "Lifespan", "Registrar", "Router"]

Q = TypeVar("Q")
R = TypeVar("R")
E = TypeVar("E", bound=Event)

DEAD_SUFFIX = dead_letter_queue("")[1:]
"""The last part of a dead-letter queue's name. A subscription must not have this name."""
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""The parameter kinds of `*args` and `**kwargs`. A call can omit these parameters."""
MAX_REQUIRED_PARAMETERS = 2
"""The most parameters without a default that a handler may have: the message and the context."""

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
"""A function that returns an async context manager for the resources of a router.

The bus enters the context manager before the first message, and exits it after the last message.
Handlers read the value that the context manager yields as `context.state`.
"""

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


class Registrar(Protocol[Q, R]):
    """A decorator that registers a handler. The handler takes a message `Q`, and returns an `R`.

    The handler may take the context as a second parameter.
    """

    @overload
    def __call__(self, handler: Callable[[Q], Awaitable[R]], /) -> Callable[[Q], Awaitable[R]]: ...
    @overload
    def __call__(
        self, handler: Callable[[Q, Context], Awaitable[R]], /
    ) -> Callable[[Q, Context], Awaitable[R]]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Register `handler`, and return it unchanged.

        Args:
            handler: A coroutine function that takes the message and, optionally, the context.

        Raises:
            ContractError: The handler is not a coroutine function, or has other required
                parameters. Or the queue already has a handler.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A handler with its contract, its queue and its limits."""

    contract: Contract
    function: Callable[..., Awaitable[Any]] = field(repr=False)
    """The handler, or a function that calls it with its dependencies."""
    wants_context: bool
    """True if `function` takes the context."""
    queue: str
    """The name of the queue from which the handler's messages come."""
    concurrency: int
    """The maximum number of messages that this process handles at the same time."""
    retry: RetryPolicy
    timeout: float | None = None
    """Seconds for one attempt. None for a request, because its deadline is the limit."""
    subscription: str | None = None
    """The name of an event's subscription, or None if the subscription has no name."""

    def tiers(self) -> tuple[str, ...]:
        """Return the names of the retry tiers that the endpoint uses.

        The retry policy requires a tier for each of its delays. Events and jobs also use the tier
        in which a message waits if its signing key is unknown.
        """
        key_wait = () if self.contract.kind == "request" else (MIN_REFRESH_SECONDS,)
        return tuple(
            dict.fromkeys(retry_delay_for(delay) for delay in (*delays_of(self.retry), *key_wait))
        )


class Router:
    """The handlers of one service, and the resources that the handlers share.

    >>> router = Router("billing")

    >>> @router.request(GetInvoice)
    ... async def get_invoice(request: GetInvoice, context: Context) -> Invoice:
    ...     return await context.state.invoice(request.number)

    A handler is a coroutine function. Its first parameter is the message. Its second positional
    parameter may be the `Context`. Each further parameter must have a default or `Depends`.
    """

    def __init__(self, name: str, *, lifespan: Lifespan | None = None) -> None:
        """Create a router without handlers.

        Args:
            name: The name of the service. The names of its contracts begin with this name.
            lifespan: A function that returns an async context manager. The bus enters the context
                manager before the first message, and exits it after the last message. Handlers read
                the value that the context manager yields as `context.state`.

        Raises:
            ContractError: `name` is not a valid service name.
        """
        check_part(name, "service")
        self.name = name
        self.lifespan = lifespan or _no_lifespan
        self.endpoints: dict[str, Endpoint] = {}

    def request(
        self, contract: RequestClass[Q, R], *, concurrency: int = REQUEST_CONCURRENCY
    ) -> Registrar[Q, R]:
        """Return a decorator that registers the handler of a request.

        The caller receives the handler's result as the reply. If the handler raises one of the
        bus's errors, the caller receives the same error. The service does not retry a request,
        because only the caller knows whether a retry is useful.

        Args:
            contract: The class of the request, which belongs to this service.
            concurrency: The maximum number of requests that this process handles at the same time.

        Raises:
            ContractError: The class has no contract, is not a request, or belongs to another
                service. Or `concurrency` is below 1. The decorator raises this error if the
                handler's parameters are invalid, or if the request already has a handler.
        """
        owned = self._require_own(contract, "request")
        return self._make_registrar(
            owned, request_queue(owned), concurrency, RetryPolicy(attempts=1)
        )

    def job(
        self,
        contract: JobClass[Q, R],
        *,
        retry: RetryPolicy | None = None,
        timeout: float = JOB_TIMEOUT,
        concurrency: int = JOB_CONCURRENCY,
    ) -> Registrar[Q, R]:
        """Return a decorator that registers the handler of a job.

        The submitter receives the handler's result, or the error of the last attempt. After a
        failed attempt, the retry policy and the error decide whether the job is retried or
        dead-lettered.

        Args:
            contract: The class of the job, which belongs to this service.
            retry: The retry policy. The default is the retry policy of the contract.
            timeout: Seconds for one attempt. If the handler takes longer, the handler is cancelled
                and the attempt fails.
            concurrency: The maximum number of jobs that this process handles at the same time.

        Raises:
            ContractError: The class has no contract, is not a job, or belongs to another service.
                Or `concurrency` is below 1, or `timeout` is not a finite number above 0. The
                decorator raises this error if the handler's parameters are invalid, or if the job
                already has a handler.
        """
        owned = self._require_own(contract, "job")
        return self._make_registrar(
            owned, job_queue(owned), concurrency, retry or owned.retry, timeout=timeout
        )

    def event(
        self,
        contract: type[E],
        *,
        subscription: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float = EVENT_TIMEOUT,
        concurrency: int = EVENT_CONCURRENCY,
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

        Raises:
            ContractError: The class has no contract, or is not an event. Or `subscription` is not a
                valid name, `concurrency` is below 1, or `timeout` is not a finite number above 0.
                The decorator raises this error if the handler's parameters are invalid, or if the
                subscription already has a handler.
        """
        event = contract_of(contract)
        _check_kind(event, "event")
        if subscription is not None:
            check_part(subscription, "subscription")
            if subscription == DEAD_SUFFIX:
                raise ContractError(
                    f"{event.type}: the subscription cannot have the name {subscription!r}, "
                    "because dead-letter queues use it. Choose another name."
                )
        queue = event_queue(self.name, event, subscription)
        return self._make_registrar(
            event,
            queue,
            concurrency,
            retry or event.retry,
            timeout=timeout,
            subscription=subscription,
        )

    async def __call__(self, envelope: Envelope) -> Envelope | None:
        """Decode a message, call its handler, and return the encoded reply.

        Args:
            envelope: The message. Its `queue` is the queue that delivered the message.

        Returns:
            The reply to a request, the result of a job, or None for an event.

        Raises:
            FailedPrecondition: No message is being handled.
            Unimplemented: The router has no handler for this message type from this queue.
            ContractViolation: The payload or the handler's result does not match the contract.
            Internal: The handler's result is not an instance of the class in the contract.
        """
        context = current.get()
        if context is None:
            raise FailedPrecondition(
                "the router was called while no message is handled. Serve it with Bus.serving."
            )
        endpoint = self.endpoints.get(envelope.queue or "")
        if endpoint is None or endpoint.contract.type != envelope.type:
            raise Unimplemented(f"{self.name} does not serve {envelope.type} from {envelope.queue}")
        message = decode(endpoint.contract.model, envelope.body, subject=envelope.type)
        result = await (
            endpoint.function(message, context)
            if endpoint.wants_context
            else endpoint.function(message)
        )
        if endpoint.contract.kind == "event":
            return None
        return reply(
            envelope,
            _check_result(endpoint.contract, result),
            source=self.name,
            model=endpoint.contract.reply,
        )

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
        requests = {"quorum": quorum_requests, "lasting": lasting_requests}
        return {
            name: self._derive_topology(endpoint, requests)
            for name, endpoint in self.endpoints.items()
        }

    def _derive_topology(
        self, endpoint: Endpoint, requests: dict[str, bool]
    ) -> tuple[Queue, Topology]:
        contract, tiers = endpoint.contract, endpoint.tiers()
        if contract.kind == "request":
            topology = request_topology(contract, **requests)
        elif contract.kind == "job":
            topology = job_topology(contract, tiers=tiers)
        else:
            topology = event_topology(self.name, contract, endpoint.subscription, tiers=tiers)
        return next(queue for queue in topology.queues if queue.name == endpoint.queue), topology

    def _require_own(self, model: Any, kind: str) -> Contract:
        contract = contract_of(model)
        _check_kind(contract, kind)
        if contract.service != self.name:
            raise ContractError(
                f"{contract.type} belongs to the service {contract.service!r}, but this router "
                f"belongs to {self.name!r}. Register the handler in the router of "
                f"{contract.service!r}."
            )
        return contract

    def _make_registrar(
        self,
        contract: Contract,
        queue: str,
        concurrency: int,
        retry: RetryPolicy,
        *,
        timeout: float | None = None,
        subscription: str | None = None,
    ) -> Registrar[Any, Any]:
        if concurrency < 1:
            raise ContractError(
                f"{contract.type}: concurrency must be at least 1, not {concurrency}"
            )
        if (
            timeout is not None and not 0 < timeout < inf
        ):  # NaN is rejected, because each comparison with NaN is false
            raise ContractError(
                f"{contract.type}: timeout must be a number of seconds above 0, not {timeout:g}"
            )

        def register(function: Any) -> Any:
            dependencies = dependencies_of(function)
            wants_context = _takes_context(function, dependencies)
            self._add(
                Endpoint(
                    contract=contract,
                    function=inject(function, _path_of(function), wants_context=wants_context)
                    if dependencies
                    else function,
                    wants_context=wants_context or bool(dependencies),
                    queue=queue,
                    concurrency=concurrency,
                    retry=retry,
                    timeout=timeout,
                    subscription=subscription,
                )
            )
            return function

        return register

    def _add(self, endpoint: Endpoint) -> None:
        existing = self.endpoints.get(endpoint.queue)
        if existing is not None:
            hint = (
                "Set a different subscription for each handler."
                if endpoint.contract.kind == "event"
                else "Remove one of them."
            )
            raise ContractError(
                f"{endpoint.contract.type} has two handlers in {self.name}: "
                f"{_path_of(existing.function)} and {_path_of(endpoint.function)}. {hint}"
            )
        self.endpoints[endpoint.queue] = endpoint


def _check_kind(contract: Contract, kind: str) -> None:
    if contract.kind != kind:
        raise ContractError(
            f"{contract.type} is a contract of kind {contract.kind}, not {kind}. "
            f"Register its handler with @router.{contract.kind}."
        )


def _check_result(contract: Contract, result: object) -> Message | None:
    if isinstance(result, contract.reply) if contract.reply else result is None:
        return result  # type: ignore[return-value]  # mypy cannot follow the condition
    expected = contract.reply.__name__ if contract.reply else "None"
    raise Internal(
        f"the handler of {contract.type} returned {type(result).__name__}, not {expected}"
    )


def _takes_context(function: Callable[..., Awaitable[Any]], dependencies: Collection[str]) -> bool:
    """Return True if a handler takes the context, as a second parameter without `Depends`.

    Raises:
        ContractError: The function is not a coroutine function, or does not take one or two
            positional parameters.
    """
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
        type(function).__call__
    ):
        raise ContractError(
            f"{_path_of(function)} is not a coroutine function. Declare it with async def."
        )
    parameters = (
        p for p in inspect.signature(function).parameters.values() if p.name not in dependencies
    )
    required = [p for p in parameters if p.default is p.empty and p.kind not in VARIADIC]
    names = ", ".join(p.name for p in required)
    if not required:
        raise ContractError(
            f"{_path_of(function)} has no required parameter. Declare the message as its first "
            "parameter."
        )
    if len(required) > MAX_REQUIRED_PARAMETERS:
        raise ContractError(
            f"{_path_of(function)} has {len(required)} required parameters ({names}); at most 2 "
            "are allowed: the message and a context. Give each other parameter a default or "
            "Depends."
        )
    if any(p.kind is p.KEYWORD_ONLY for p in required):
        raise ContractError(
            f"{_path_of(function)} has a keyword-only parameter among its required parameters "
            f"({names}). Declare the message and the context as positional parameters."
        )
    return len(required) == MAX_REQUIRED_PARAMETERS


def _path_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


@asynccontextmanager
async def _no_lifespan() -> AsyncIterator[None]:
    yield None
