"""The test kit: buses that talk to each other in this process, on a model broker that fails the way RabbitMQ fails.

>>> async with MemoryBuses() as buses:
...     desk, client = await buses.bus("desk"), await buses.bus("client")
...     await buses.serve(desk, router)
...     reply = await client.request(Ask(...), timeout=1)
...     buses.broker.drop_all()                      # what does your service do now?

On a `VirtualLoop` that skips waits, with `clock=wall_clock`, an hour in a retry tier takes no time.
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
    """Connected buses on one `MemoryBroker`, closed in the reverse order at the end of the block.

    `broker` has the faults (`stop`, `drop_all`, `block`, `limit`, `delete_queue`, …) and the inspection (`depth`, `peek`).
    `clock` gives seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.broker = MemoryBroker(clock=clock)
        self._clock = clock
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Nothing is connected yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def bus(self, service: str, **settings: Any) -> Bus:
        """A connected bus of this service; `settings` are those of `bus.settings.Settings`, and `auth` is off unless they say otherwise."""
        transport = MemoryTransport(self.broker, clock=self._clock)
        bus = Bus(
            service,
            settings=Settings(**{"auth": "off", **settings}),
            transport=transport,
            clock=self._clock,
        )
        return await self._open.enter_async_context(bus)

    async def serve(self, bus: Bus, router: Router) -> None:
        """Serve until the block ends; returns when every consumer is ready."""
        await self._open.enter_async_context(bus.serving(router))


@contextmanager
def override_dependency(
    dependency: Callable[..., Any], replacement: Callable[..., Any]
) -> Iterator[None]:
    """Inside the block, what handlers get by `Depends(dependency)` is what `replacement` gives."""
    with provider().scope(dependency, replacement):
        yield


replaced = override_dependency
"""The former name of `override_dependency`; the next minor version removes it."""
