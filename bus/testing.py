"""Testing: connected buses in one process, on a broker in memory that simulates RabbitMQ.

>>> async with MemoryBuses() as buses:
...     desk, client = await buses.bus("desk"), await buses.bus("client")
...     await buses.serve(desk, router)
...     reply = await client.request(Ask(...), timeout=1)
...     buses.broker.drop_all()  # Test how your service reacts.

A `VirtualLoop` skips waits, such as an hour in a retry tier. Use it with `clock=wall_clock`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from bus.contracts.sensitive import shown_values
from bus.runtime.bus import Bus
from bus.runtime.dependencies import provider
from bus.runtime.router import Router
from bus.settings import Settings
from bus.transports.memory import MemoryBroker, MemoryTransport, VirtualLoop, wall_clock

__all__ = [
    "MemoryBroker",
    "MemoryBuses",
    "MemoryTransport",
    "VirtualLoop",
    "override_dependency",
    "replaced",
    "shown_values",
    "wall_clock",
]


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


@contextmanager
def override_dependency(
    dependency: Callable[..., Any], replacement: Callable[..., Any]
) -> Iterator[None]:
    """Replace a dependency of handlers until the `with` block ends.

    Args:
        dependency: Function that handlers pass to `Depends`.
        replacement: Function that is called instead of `dependency`.

    Raises:
        ConfigurationError: fast-depends is not installed.
    """
    with provider().scope(dependency, replacement):
        yield


replaced = override_dependency
"""Former name of `override_dependency`. The next minor version removes it."""
