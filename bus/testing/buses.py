"""Connected buses on one `MemoryBroker`, in one process."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from pydantic import SecretStr

from bus.contracts.contract import Event, Message
from bus.errors import BusError, ConfigurationError
from bus.messaging.envelope import Envelope
from bus.messaging.ports.store import Store
from bus.messaging.suggestions import did_you_mean
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.testing.explicit_settings import ExplicitSettings
from bus.testing.memory_bus import MemoryBus
from bus.testing.messages import DeadMessage, FoundMessages, SentMessage
from bus.testing.search import find_dead, find_sent
from bus.testing.settled import wait_settled
from bus.testing.work import Work
from bus.transports.memory import MemoryBroker, MemoryTransport

__all__ = ["MemoryBuses"]

M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=Event)
WRITE_FIELD = ". Write a field of bus.Settings, such as heartbeat=5."


class MemoryBuses:
    """Connected buses on one `MemoryBroker`.

    The object is a context manager that closes the buses in reverse order. The methods of `broker`
    inject failures (`stop`, `drop_all`, `block`, `limit`, `delete_queue` and others) and inspect
    queues (`depth`, `peek`).

    A handler in this process can fail. The error that its caller receives then has the handler's
    exception as its `__cause__`.

    Args:
        clock: Function that returns the current time in seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.broker = MemoryBroker(clock=clock)
        self.clock = clock
        """Function that returns the current time in seconds since the epoch."""
        self._open = AsyncExitStack()
        self._work = Work(self.broker.activity.changed)
        self._buses: list[MemoryBus] = []

    async def __aenter__(self) -> Self:
        """Return this object. No bus is connected yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._open.aclose()
        finally:
            self._work.failures.clear()  # their tracebacks keep the variables of handlers alive

    async def bus(self, service: str, **settings: Any) -> Bus:
        """Return a connected bus. It is closed at the end of the `async with` block.

        Args:
            service: Name of the bus's service.
            **settings: Fields of `bus.Settings`. The default of `auth` is `off` here. Variables of
                the environment are not read. The keyword `store` can also be an object, such as
                `bus.testing.MemoryStore()`, which several buses of one service can share.

        Raises:
            ContractError: `service` is not a valid name.
            pydantic.ValidationError: The value of a setting is wrong.
            ConfigurationError: Keys or grants cannot be used. Or a keyword is not a field of
                `bus.Settings`, such as a misspelt one.
        """
        store: Store | None = None
        if not isinstance(settings.get("store"), str | SecretStr | None):
            store = settings.pop("store")
        for name in settings.keys() - ExplicitSettings.model_fields.keys():
            hint = did_you_mean(name, ExplicitSettings.model_fields) or WRITE_FIELD
            raise ConfigurationError(f"bus('{service}', …): `{name}` is not a setting{hint}")
        chosen = ExplicitSettings(**{"auth": "off", **settings})
        transport = MemoryTransport(
            self.broker, clock=self.clock, max_body_bytes=chosen.max_message
        )
        bus = MemoryBus(
            service,
            chosen,
            transport,
            work=self._work,
            store=store,
            clock=self.clock,
        )
        self._buses.append(bus)
        return await self._open.enter_async_context(bus)

    async def serve(self, bus: Bus, router: Router) -> None:
        """Serve a router until the `async with` block ends. Return when every consumer is ready.

        Args:
            bus: Bus of the router's service.
            router: Handlers to serve.

        Raises:
            ConfigurationError: The router belongs to another service, or a grant or encryption key
                is missing. Or the timeout of a handler is longer than the broker's consumer
                timeout.
        """
        await self._open.enter_async_context(bus.serving(router))

    async def settled(self, *, timeout: float = 5, retries: bool = False) -> None:
        """Wait until the buses have nothing left to do, and raise an error if they do not end.

        The method counts and does not wait for a time. It returns when each message is acked, is a
        dead letter, or waits for a timer. A message in a retry tier and a request that can expire
        wait for a timer. Also no handler runs, no call of these buses is in progress, and no
        result of a job is still to be sent. Messages that handlers send count as well.

        The method does not know of a task that a handler or a test has started, unless the task
        is calling a bus.

        Args:
            timeout: Seconds of real time, also on a `VirtualLoop`. 0 is allowed.
            retries: True to wait for the messages in retry tiers, too.

        Raises:
            ConfigurationError: `timeout` is not a finite number of seconds.
            Unsettled: Something is still in progress after `timeout` seconds. Or a queue has a
                message, and no consumer in this test will receive it. The second error does not
                wait for `timeout`. The text lists the queues, handlers and calls.
        """
        __tracebackhide__ = True
        await wait_settled(self.broker, self._work, timeout=timeout, retries=retries)

    def published(self, event: type[E]) -> FoundMessages[E, SentMessage[E]]:
        """Return the events of one class that these buses have published, in order.

        Args:
            event: Class of the events.

        Raises:
            ContractError: The class has no contract.
            TypeError: The class is not an event.
        """
        return find_sent(self._work, event, "event", "published")

    def submitted(self, job: type[M]) -> FoundMessages[M, SentMessage[M]]:
        """Return the jobs of one class that these buses have submitted, in order.

        Args:
            job: Class of the jobs.

        Raises:
            ContractError: The class has no contract.
            TypeError: The class is not a job.
        """
        return find_sent(self._work, job, "job", "submitted")

    def requested(self, request: type[M]) -> FoundMessages[M, SentMessage[M]]:
        """Return the requests of one class that these buses have sent, in order.

        A request without a reply is included.

        Args:
            request: Class of the requests.

        Raises:
            ContractError: The class has no contract.
            TypeError: The class is not a request.
        """
        return find_sent(self._work, request, "request", "requested")

    @overload
    def dead(self, source: type[M]) -> FoundMessages[M, DeadMessage[M]]: ...
    @overload
    def dead(self, source: str) -> FoundMessages[Message, DeadMessage[Message]]: ...
    def dead(self, source: type[Message] | str) -> FoundMessages[Any, DeadMessage[Any]]:
        """Return dead letters, and keep them in their queues.

        Args:
            source: Class of the messages, for the dead letters in all queues. Or the name of one
                work queue or dead-letter queue.

        Raises:
            ContractError: The class has no contract.
            NotFound: No queue has this name.
        """
        return find_dead(self.broker, self._work, source, self._decrypt)

    def _decrypt(self, envelope: Envelope) -> Envelope:
        """Decrypt a dead letter with the keys of the first bus that has them."""
        for bus in self._buses:
            with suppress(BusError):
                return bus.decrypt(envelope)
        return envelope
