"""A call of one handler, as the router calls it, without a queue."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeGuard, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bus.contracts.contract import Contract, Message, contract_of, decode, encode
from bus.messaging.context import Context, Sender, handling
from bus.messaging.envelope import Envelope, Progress, new_id
from bus.messaging.suggestions import did_you_mean
from bus.runtime.declared_parameters import path_of
from bus.runtime.endpoint import Endpoint
from bus.runtime.exits import contain_exits
from bus.runtime.router import Router
from bus.testing.buses import MemoryBuses

__all__ = ["HandlerCall"]

R = TypeVar("R")

SOURCE = "test"
"""Service that sends the message, unless the test passes another `source`."""
OWN = frozenset({"id", "type", "role", "body", "queue", "timestamp", "received"})
"""Attributes of the envelope that the message and its handler determine."""


class HandlerCall:
    """A function that calls one handler with a message, as a worker would.

    The message is encoded and decoded, and the handler receives its dependencies and a real
    `Context`. The reply is checked and encoded, as on the wire. No middleware runs, so the test
    receives the handler's own exception, and the handler has no timeout.

    >>> assert await handle(find, Find(title="Emma")) == Place(shelf="A3")
    """

    def __init__(self, buses: MemoryBuses) -> None:
        """Create the function. The handlers send their messages with a bus of `buses`."""
        self._buses = buses
        self._senders: dict[str, Sender] = {}
        self.progress: list[Progress] = []
        """The progress that the last handler reported, in order."""

    async def __call__(
        self,
        handler: Callable[..., Awaitable[R]],
        message: Message,
        /,
        *,
        bus: Sender | None = None,
        state: object = None,
        service: str | None = None,
        session: object = None,
        **context: Any,
    ) -> R:
        """Call a handler, and return its reply.

        Args:
            handler: The handler, with or without a router.
            message: Request, event or job that the handler takes.
            bus: The handler's `context.bus`. The default is a bus of the handler's service on the
                model broker, so `published` and `submitted` find what the handler sends.
            state: The handler's `context.state`. The lifespan of the router is not entered.
            service: Service of the handler. The default is the service of the router that is a
                variable of the handler's module, or the service of the message's contract.
            session: The session of a transactional handler. The test commits it, or rolls it back.
            **context: Attributes of `context.envelope`, such as `attempt=3`, `source="shop"` or
                `correlation_id`, and `deadline` in milliseconds since the epoch.

        Returns:
            The reply, decoded from its JSON. None for an event.

        Raises:
            Exception: The exception that the handler raises.
            ContractError: The handler's parameters are invalid, or the message has no contract.
            ContractViolation: The message or the reply does not match its contract.
            Internal: The handler returned an object of another class than the contract requires.
            TypeError: The handler is registered for another message. Or the envelope has no such
                attribute, or a value has a wrong type.
        """
        _check_arguments(handler, message, bus=bus, service=service)
        contract = contract_of(type(message))
        router, queue = _find_endpoint(handler, contract, service, session)
        if router.endpoints[queue].is_transactional and session is None:
            raise TypeError(
                f"handle: {path_of(handler)} is transactional. Pass session= with an AsyncSession."
            )
        self.progress = []
        context = {"source": SOURCE, **context}
        envelope = _envelope(contract, encode(message), queue, self._buses.clock(), context)
        sender = bus or await self._sender(service or router.name)
        current = Context(
            envelope=envelope,
            bus=sender,
            state=state,
            deadline=envelope.deadline,
            report=self._record if contract.kind == "job" else None,
            session=session,
        )
        with handling(current), contain_exits():
            reply = await router(envelope)
        return cast("R", None if reply is None else decode(contract.reply, reply.body))

    async def _sender(self, service: str) -> Sender:
        if service not in self._senders:
            self._senders[service] = await self._buses.bus(service)
        return self._senders[service]

    async def _record(self, progress: Progress) -> None:
        self.progress.append(progress)


def _check_arguments(handler: object, message: object, *, bus: object, service: object) -> None:
    """Raise `TypeError` if an argument of `handle` has a wrong type."""
    if not callable(handler):
        raise TypeError(f"handle: handler must be a function, not {_name_value(handler)}.")
    if not isinstance(message, Message):
        example = f", such as {message.__name__}(…)" if _is_message_class(message) else ""
        raise TypeError(f"handle: message must be a message{example}, not {_name_value(message)}.")
    methods = ("request", "publish", "submit")  # a double of a test can have only one of them
    if bus is not None and not any(callable(getattr(bus, each, None)) for each in methods):
        raise TypeError(
            f"handle: bus must be an object with methods such as {' and '.join(methods)}, not "
            f"{_name_value(bus)}. Leave bus out to send on the model broker."
        )
    if service is not None and not isinstance(service, str):
        raise TypeError(
            f"handle: service must be str, not {_name_value(service)}. Pass a name, 'billing'."
        )


def _find_endpoint(
    handler: Callable[..., Any], contract: Contract, service: str | None, session: object
) -> tuple[Router, str]:
    """Return the handler's router and queue. Without a router, make one for the handler."""
    registered: list[Contract] = []
    for router, queue, endpoint in _endpoints_beside(handler):
        if handler in _layers(endpoint.function):
            if endpoint.contract is contract:
                return router, queue
            if endpoint.contract not in registered:  # an event can have several subscriptions
                registered.append(endpoint.contract)
    if registered:
        types = " and ".join(each.type for each in registered)
        classes = " or ".join(f"{each.model.__name__}(…)" for each in registered)
        raise TypeError(
            f"{path_of(handler)} is the handler of {types}, not of {contract.type}. Pass {classes}."
        )
    router = Router(contract.service if contract.kind != "event" else service or contract.service)
    register: Any = getattr(router, contract.kind)
    is_transactional = session is not None and contract.kind != "request"
    options = {"transactional": True} if is_transactional else {}
    register(contract.model, **options)(handler)
    return router, next(iter(router.endpoints))


def _endpoints_beside(handler: Callable[..., Any]) -> Iterator[tuple[Router, str, Endpoint]]:
    """Yield the endpoints of the routers that are variables of the handler's module."""
    module = sys.modules.get(getattr(handler, "__module__", ""))
    for router in [*vars(module).values()] if module else ():
        if isinstance(router, Router):
            for queue, endpoint in router.endpoints.items():
                yield router, queue, endpoint


def _layers(function: object) -> Iterator[object]:
    """Yield a registered function, and the functions that it wraps, such as the handler."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def _envelope(
    contract: Contract, body: bytes, queue: str, now: float, attributes: dict[str, Any]
) -> Envelope:
    known = sorted(frozenset(Envelope.__struct_fields__) - OWN)
    for name, value in attributes.items():
        if name not in known:
            raise TypeError(
                f"the envelope has no attribute {name!r} to set{did_you_mean(name, known) or '.'} "
                f"Pass one of {', '.join(known)}, or bus, state, service or session."
            )
        type_ = _attribute_types()[name]
        try:
            plain = dict(value) if isinstance(value, Mapping) else value
            TypeAdapter(type_).validate_python(plain, strict=True)
        except ValidationError:
            raise TypeError(
                f"handle: {name} must be {_name_type(type_)}, not {_name_value(value)}. "
                f"Pass {name}= with such a value."
            ) from None
    if attributes.get("attempt", 1) < 1:
        raise ValueError("handle: attempt must be at least 1. The first attempt is 1.")
    id_ = new_id()
    return Envelope(
        id=id_,
        type=contract.type,
        role=contract.kind,
        body=body,
        timestamp=int(now),
        received=int(now * 1000),
        queue=queue,
        **{"correlation_id": id_, **attributes},
    )


@cache
def _attribute_types() -> dict[str, Any]:
    return get_type_hints(Envelope)


def _name_type(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) else inspect.formatannotation(type_)


def _name_value(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _is_message_class(value: object) -> TypeGuard[type[Message]]:
    return isinstance(value, type) and issubclass(value, Message)
