"""A session of a `SyncBus`: a background loop, and the bus that is open in it."""

import asyncio
import copy
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from importlib import import_module
from typing import Any, TypeVar

from bus.contracts.limits import MAX_SECONDS, is_number
from bus.errors import BusError, FailedPrecondition, Unavailable
from bus.messaging.timers import format_seconds
from bus.middleware import spans
from bus.runtime.background_loop import UNLIMITED_SECONDS, BackgroundLoop
from bus.runtime.bus import Bus
from bus.runtime.life_cycle import running_loop
from bus.settings import Settings

__all__ = ["Operation", "Session", "changing", "limit_of", "refuse_event_loop"]

LOADED_LATER = (
    "bus.contracts.any_checks",
    "bus.contracts.encode_faults",
    "bus.contracts.forward_references",
    "bus.contracts.guards",
    "bus.contracts.iterators",
    "bus.contracts.lossless",
    "bus.contracts.violations",
    "bus.security.key_set_download",
    "encodings.idna",  # the codec of `socket.getaddrinfo`
)
"""Modules that a bus loads at its first call, or at its first error.

A session loads them before its thread starts. If a process were forked while that thread imports a
module, the import lock of the module would never be released in the child.
"""

changing = threading.RLock()
"""Held while a session or its bus is created.

No fork happens in that time. So no child inherits a session that is only partly created. And no
child inherits a lock that this thread holds in pydantic while it builds the settings.
"""
os.register_at_fork(
    before=changing.acquire,
    after_in_parent=changing.release,
    after_in_child=changing.release,
)

T = TypeVar("T")

Operation = Callable[[Bus, float | None], Coroutine[Any, Any, T]]
"""A call of an open bus, with the seconds that remain of its timeout."""
Default = Callable[[Settings], float]
"""A function that returns the timeout of a call if the caller gives none."""


class Session:
    """A background loop, and the bus that is open in it."""

    def __init__(
        self,
        service: str,
        create: Callable[[], Bus],
        *,
        loop: BackgroundLoop | None = None,
        bus: Bus | None = None,
    ) -> None:
        """Create the bus, and start the loop. The bus is opened at the first call.

        Args:
            service: The name of the bus's service.
            create: Creates the bus. The calling thread does this while no fork can happen.
            loop: A loop that runs already. The owner of the loop stops it.
            bus: A bus that is open in `loop`. The owner of the loop closes it.
        """
        for name in LOADED_LATER:
            import_module(name)
        spans.load()
        self.subject = f"the SyncBus of {service!r}"
        self._create = create
        self._bus = bus
        self._created: Bus | None = None
        """The bus that the next attempt opens. None after an attempt has failed."""
        self._opening: asyncio.Task[Bus] | None = None
        if bus is None:
            self._new_bus()
        self._is_owner = loop is None
        self.loop = loop or BackgroundLoop(self.subject, self._close)

    @property
    def is_open(self) -> bool:
        """True if the bus was opened."""
        return self._bus is not None

    @property
    def settings(self) -> Settings:
        """The settings of the bus."""
        return (self._bus or self._new_bus()).settings

    def _new_bus(self) -> Bus:
        """Return the bus to open. Create it in this thread, and not in the loop's thread.

        If a process were forked while the loop's thread builds a schema of pydantic, the child
        would wait forever for a lock of that thread.
        """
        with changing:
            created = self._created
            if created is None:
                # The bus must not keep the context of the first caller.
                created = self._created = Context().run(self._create)
            return created

    def connect(self) -> None:
        """Open the bus, unless it is open."""
        if self._bus is None:
            created = self._new_bus()
            self.loop.run(lambda: self._opened(created))

    def run(self, operation: Operation[T], timeout: float | None, default: Default) -> T:
        """Call the open bus in the loop, and wait for the result. Open the bus if necessary."""
        bus = self._bus
        if bus is None:
            created = self._new_bus()
            limit = limit_of(timeout, UNLIMITED_SECONDS)
            return self.loop.run(lambda: self._run_first(created, operation, timeout), limit)
        limit = default(bus.settings) if timeout is None else limit_of(timeout, UNLIMITED_SECONDS)
        return self.loop.run(lambda: operation(bus, timeout), limit)

    async def _run_first(self, created: Bus, operation: Operation[T], timeout: float | None) -> T:
        """Call the bus after it was opened. The timeout includes the time to open it."""
        clock = asyncio.get_running_loop().time
        started = clock()
        limit = None if timeout is None else float(timeout)
        try:
            async with asyncio.timeout(limit):
                bus = await self._opened(created)
        except TimeoutError:
            raise Unavailable(
                f"{self.subject} was not connected within {format_seconds(limit or 0)}, so the "
                "message was not sent. Check that RabbitMQ runs, or raise the timeout."
            ) from None
        return await operation(
            bus, timeout if limit is None else max(0.0, limit - (clock() - started))
        )

    async def _opened(self, created: Bus) -> Bus:
        """Return the open bus. All calls wait for the same attempt to open it."""
        if self._bus is not None:
            return self._bus
        if self._opening is None or self._opening.done():
            # The tasks of the connection must not inherit the context of the first caller.
            self._opening = asyncio.get_running_loop().create_task(
                self._open(created), context=Context()
            )
            # asyncio would log an error that no call has waited for.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        opening = self._opening
        await asyncio.wait([opening])
        try:
            return opening.result()
        except asyncio.CancelledError:
            raise self.loop.error() from None
        except BusError as error:
            # Each thread gets an error of its own, because a thread changes the error it raises.
            raise copy.copy(error) from error

    async def _open(self, created: Bus) -> Bus:
        try:
            self._bus = await created.__aenter__()
        finally:
            self._created = None  # the next attempt reads the settings again
        return created

    def stop(self) -> None:
        """Close the bus, and end the loop."""
        if self._is_owner:
            self.loop.stop()

    async def _close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._bus is not None:
            await self._bus.__aexit__(None, None, None)


def limit_of(timeout: float | None, default: float) -> float:
    """Return the seconds after which a call should have ended."""
    if timeout is None:
        return default
    if timeout.__class__ is float and 0 <= timeout <= MAX_SECONDS:  # fast, for each request
        return timeout
    is_valid = is_number(timeout) and 0 <= timeout <= MAX_SECONDS
    return float(timeout) if is_valid else default


def refuse_event_loop(subject: str) -> None:
    """Raise `FailedPrecondition` if an event loop runs in this thread."""
    if running_loop() is not None:
        raise FailedPrecondition(
            f"{subject} was used in a thread with a running event loop, which it would block. Use "
            "`await` with a Bus there, or call it in asyncio.to_thread."
        )
