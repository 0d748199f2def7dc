"""Connected buses in memory for tests of synchronous code."""

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from bus.contracts.contract import Event, Message
from bus.runtime.background_loop import BackgroundLoop
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.runtime.sync_bus import SyncBus, sessions_from
from bus.runtime.sync_session import Session
from bus.testing.buses import MemoryBuses
from bus.testing.messages import DeadMessage, FoundMessages, SentMessage

__all__ = ["SyncMemoryBuses"]

M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=Event)
T = TypeVar("T")


class SyncMemoryBuses:
    """Connected buses on one `MemoryBroker`, for tests without an event loop.

    The object is a context manager. The buses and their handlers run in a background loop. The code
    under test runs in the thread of the test, so it uses the test's database connection.

    >>> with SyncMemoryBuses() as buses:
    ...     buses.serve(router)
    ...     buses.connect(bus)  # The SyncBus of the code under test.
    ...     reply = bus.request(Ask(...), timeout=1)

    Args:
        clock: Function that returns the current time in seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.buses = MemoryBuses(clock=clock)
        """The asynchronous buses. Call their methods by `run`."""
        self.broker = self.buses.broker
        """The model broker. Call its methods by `run`."""
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Start the background loop. No bus is connected yet."""
        self._loop = BackgroundLoop("the loop of SyncMemoryBuses", self._close)
        return self

    async def _close(self) -> None:
        await self.buses.__aexit__(None, None, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
        self._loop.stop()

    @overload
    def run(self, call: Callable[[], Awaitable[T]]) -> T: ...
    @overload
    def run(self, call: Callable[[], T]) -> T: ...
    def run(self, call: Callable[[], Any]) -> Any:
        """Call a function in the loop of the buses, and return its result.

        Use it for the methods of `broker` and of `buses`, for example `run(buses.broker.stop)`.

        Args:
            call: A function, also an asynchronous one.
        """

        async def called() -> Any:
            result = call()
            return await result if isawaitable(result) else result

        return self._loop.run(called)

    def connect(self, bus: SyncBus, **settings: Any) -> None:
        """Connect a bus of the code under test to the model broker, until the block ends.

        Args:
            bus: The bus. Its own settings and middlewares are not used.
            **settings: Fields of `bus.Settings`, as for `MemoryBuses.bus`.

        Raises:
            pydantic.ValidationError: The value of a setting is wrong.
            ConfigurationError: Keys or grants cannot be used. Or a keyword is not a field of
                `bus.Settings`, such as a misspelt one.
        """
        connected = self._bus(bus.service, settings)

        def session() -> Session:
            return Session(bus.service, lambda: connected, loop=self._loop, bus=connected)

        self._open.enter_context(sessions_from(bus, session))

    def serve(self, router: Router, **settings: Any) -> None:
        """Serve a router until the block ends. Return when every consumer is ready.

        Args:
            router: Handlers to serve.
            **settings: Fields of `bus.Settings`, as for `MemoryBuses.bus`.

        Raises:
            ConfigurationError: A setting, grant or encryption key is missing or wrong.
        """
        bus = self._bus(router.name, settings)
        self.run(lambda: self.buses.serve(bus, router))

    def settled(self, *, timeout: float = 5) -> None:
        """Wait until the buses have nothing left to do, as `MemoryBuses.settled` does.

        Messages in retry tiers are settled, because time is real here.

        Args:
            timeout: Seconds to wait.

        Raises:
            ConfigurationError: `timeout` is not a finite number of seconds.
            Unsettled: Something is still in progress after `timeout` seconds. Or a queue has a
                message, and no consumer in this test will receive it.
        """
        __tracebackhide__ = True
        self.run(lambda: self.buses.settled(timeout=timeout))

    def published(self, event: type[E]) -> FoundMessages[E, SentMessage[E]]:
        """Return the events of one class that these buses have published, in order."""
        return self.run(lambda: self.buses.published(event))

    def submitted(self, job: type[M]) -> FoundMessages[M, SentMessage[M]]:
        """Return the jobs of one class that these buses have submitted, in order."""
        return self.run(lambda: self.buses.submitted(job))

    def requested(self, request: type[M]) -> FoundMessages[M, SentMessage[M]]:
        """Return the requests of one class that these buses have sent, in order."""
        return self.run(lambda: self.buses.requested(request))

    def dead(self, source: type[M]) -> FoundMessages[M, DeadMessage[M]]:
        """Return dead letters of one class, and keep them in their queues."""
        return self.run(lambda: self.buses.dead(source))

    def _bus(self, service: str, settings: dict[str, Any]) -> Bus:
        return self.run(lambda: self.buses.bus(service, **settings))
