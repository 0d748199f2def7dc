"""Message Dispatcher: a service's handlers, by contract; itself a Handler."""

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
OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
"""Entered before the first message and left after the last; what it yields is `context.state`."""

REQUEST_CONCURRENCY = 16
"""Requests wait on other services most of the time."""
EVENT_CONCURRENCY = 16
JOB_CONCURRENCY = 1
"""A job is heavy until somebody says otherwise."""
JOB_TIMEOUT = 600.0
"""Seconds; below the 30 minutes after which the broker takes a job back from its worker."""
EVENT_TIMEOUT = 60.0
"""Seconds."""


class Registrar(Protocol[Q, R]):
    """Takes a handler of `Q` that answers `R`, with or without a context."""

    @overload
    def __call__(self, handler: Callable[[Q], Awaitable[R]], /) -> Callable[[Q], Awaitable[R]]: ...
    @overload
    def __call__(
        self, handler: Callable[[Q, Context], Awaitable[R]], /
    ) -> Callable[[Q, Context], Awaitable[R]]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Take `handler`, and give it back as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One handler, its contract, and how it is to be run."""

    contract: Contract
    function: Callable[..., Awaitable[Any]] = field(repr=False)
    wants_context: bool
    queue: str
    concurrency: int
    retry: RetryPolicy
    timeout: float | None = None
    """Seconds for one attempt; a request has its deadline instead."""
    subscription: str | None = None

    def tiers(self) -> tuple[str, ...]:
        """The retry tiers that its policy uses, and the one in which an event or job waits for an unknown key."""
        parking = () if self.contract.kind == "request" else (MIN_REFRESH_SECONDS,)
        return tuple(
            dict.fromkeys(retry_delay_for(delay) for delay in (*delays_of(self.retry), *parking))
        )


class Router:
    """A service: its identity, its handlers, and what they share."""

    def __init__(self, name: str, *, lifespan: Lifespan | None = None) -> None:
        """`name` is the service's name, the first part of the names of its contracts; `ContractError` where it is no name."""
        check_part(name, "service")
        self.name = name
        self.lifespan = lifespan or _nothing
        self.endpoints: dict[str, Endpoint] = {}

    def request(
        self, contract: RequestClass[Q, R], *, concurrency: int = REQUEST_CONCURRENCY
    ) -> Registrar[Q, R]:
        """Answer a request; at most `concurrency` at a time in this process. What it raises is the caller's error."""
        declared = self._own(contract, "request")
        return self._registrar(
            declared, request_queue(declared), concurrency, RetryPolicy(attempts=1)
        )

    def job(
        self,
        contract: JobClass[Q, R],
        *,
        retry: RetryPolicy | None = None,
        timeout: float = JOB_TIMEOUT,
        concurrency: int = JOB_CONCURRENCY,
    ) -> Registrar[Q, R]:
        """Do a job: each attempt at most `timeout` seconds, `concurrency` at a time in this process. `retry`: else the contract's."""
        declared = self._own(contract, "job")
        return self._registrar(
            declared, job_queue(declared), concurrency, retry or declared.retry, timeout=timeout
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
        """Care about an event, anybody's. Two handlers of one event need two `subscription` names: each has its queue."""
        declared = contract_of(contract)
        _expect(declared, "event")
        if subscription is not None:
            check_part(subscription, "subscription")
            if subscription == DEAD_SUFFIX:
                raise ContractError(
                    f"{declared.type}: a subscription {subscription!r} would share the dead letters' queue; rename it"
                )
        queue = event_queue(self.name, declared, subscription)
        return self._registrar(
            declared,
            queue,
            concurrency,
            retry or declared.retry,
            timeout=timeout,
            subscription=subscription,
        )

    async def __call__(self, envelope: Envelope) -> Envelope | None:
        """Decode, call the handler, encode what it answers."""
        context = current.get()
        if context is None:
            raise FailedPrecondition(
                "a router handles messages inside a context; serve it with Bus.serving"
            )
        endpoint = self.endpoints.get(envelope.queue or "")
        if endpoint is None or endpoint.contract.type != envelope.type:
            raise Unimplemented(f"{self.name} does not serve {envelope.type} from {envelope.queue}")
        message = decode(endpoint.contract.model, envelope.body)
        answer = await (
            endpoint.function(message, context)
            if endpoint.wants_context
            else endpoint.function(message)
        )
        if endpoint.contract.kind == "event":
            return None
        return reply(
            envelope,
            _checked(endpoint.contract, answer),
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
        """By queue: the queue that is consumed, and everything that it needs in the broker."""
        requests = {"quorum": quorum_requests, "lasting": lasting_requests}
        return {name: self._needs(endpoint, requests) for name, endpoint in self.endpoints.items()}

    def _needs(self, endpoint: Endpoint, requests: dict[str, bool]) -> tuple[Queue, Topology]:
        contract, tiers = endpoint.contract, endpoint.tiers()
        if contract.kind == "request":
            topology = request_topology(contract, **requests)
        elif contract.kind == "job":
            topology = job_topology(contract, tiers=tiers)
        else:
            topology = event_topology(self.name, contract, endpoint.subscription, tiers=tiers)
        return next(queue for queue in topology.queues if queue.name == endpoint.queue), topology

    def _own(self, model: Any, kind: str) -> Contract:
        declared = contract_of(model)
        _expect(declared, kind)
        if declared.service != self.name:
            raise ContractError(
                f"{declared.type} belongs to the service {declared.service!r}, and this router is {self.name!r}; only its owner serves it"
            )
        return declared

    def _registrar(
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
            raise ContractError(f"{contract.type}: concurrency is at least 1, not {concurrency}")
        if timeout is not None and not 0 < timeout < inf:  # NaN, too
            raise ContractError(
                f"{contract.type}: timeout is a number of seconds above 0, not {timeout:g}"
            )

        def register(function: Any) -> Any:
            dependencies = dependencies_of(function)
            wants_context = _wants_context(function, dependencies)
            self._add(
                Endpoint(
                    contract=contract,
                    function=inject(function, _name(function), wants_context=wants_context)
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
        known = self.endpoints.get(endpoint.queue)
        if known is not None:
            hint = (
                "; give each a subscription of its own" if endpoint.contract.kind == "event" else ""
            )
            raise ContractError(
                f"{endpoint.contract.type} has two handlers in {self.name}: {_name(known.function)} and {_name(endpoint.function)}{hint}"
            )
        self.endpoints[endpoint.queue] = endpoint


def _expect(contract: Contract, kind: str) -> None:
    if contract.kind != kind:
        raise ContractError(
            f"{contract.type} is a {contract.kind}; register it with @router.{contract.kind}"
        )


def _checked(contract: Contract, answer: object) -> Message | None:
    if isinstance(answer, contract.reply) if contract.reply else answer is None:
        return answer  # type: ignore[return-value]  # the condition says so, in a form that mypy does not follow
    wanted = contract.reply.__name__ if contract.reply else "None"
    raise Internal(f"the handler of {contract.type} answered {type(answer).__name__}, not {wanted}")


def _wants_context(function: Callable[..., Awaitable[Any]], dependencies: Collection[str]) -> bool:
    """Whether a handler takes a second argument, beside dependencies; `ContractError` for other than one or two, and a plain function."""
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
        type(function).__call__
    ):
        raise ContractError(
            f"{_name(function)} is no coroutine function; declare it with async def"
        )
    parameters = (
        p for p in inspect.signature(function).parameters.values() if p.name not in dependencies
    )
    required = [p for p in parameters if p.default is p.empty and p.kind not in OPEN]
    if not 1 <= len(required) <= 2 or any(p.kind is p.KEYWORD_ONLY for p in required):  # noqa: PLR2004 - the message, and the context
        names = ", ".join(p.name for p in required) or "nothing"
        raise ContractError(
            f"{_name(function)} needs {names}; a handler takes the message and, if it likes, the context, by position"
        )
    return len(required) == 2  # noqa: PLR2004 - as above


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield None
