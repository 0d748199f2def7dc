"""Connected buses on one `MemoryBroker`, in one process."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings
from bus.transports.memory import MemoryBroker, MemoryTransport

__all__ = ["MemoryBuses"]


class MemoryBuses:
    """Connected buses on one `MemoryBroker`.

    The object is a context manager that closes the buses in reverse order. The methods of `broker`
    inject failures (`stop`, `drop_all`, `block`, `limit`, `delete_queue` and others) and inspect
    queues (`depth`, `peek`).

    Args:
        clock: Function that returns the current time in seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.broker = MemoryBroker(clock=clock)
        self._clock = clock
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Return this object. No bus is connected yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def bus(self, service: str, **settings: Any) -> Bus:
        """Return a connected bus. It is closed at the end of the `async with` block.

        Args:
            service: Name of the bus's service.
            **settings: Fields of `bus.Settings`. The default of `auth` is `off` here.

        Raises:
            ContractError: `service` is not a valid name.
            pydantic.ValidationError: The value of a setting is wrong.
            ConfigurationError: Keys or grants cannot be used.
        """
        transport = MemoryTransport(self.broker, clock=self._clock)
        bus = Bus(
            service,
            settings=Settings(**{"auth": "off", **settings}),
            transport=transport,
            clock=self._clock,
        )
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
