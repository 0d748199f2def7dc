"""Notifications of the store that a job has changed. Without them, a worker asks once a second."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from bus.storage.queue_signals import QueueSignals

__all__ = ["CHANNEL", "NO_NOTIFICATIONS", "Notifications", "NotifyingDatabase"]

log = logging.getLogger("bus.store")

CHANNEL: Final = "bus_jobs"
"""Channel of PostgreSQL. The payload of a notification is the queue."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before a new connection."""
CLOSE_SECONDS = 2.0
CHECK_SECONDS = 20.0
"""Seconds between two checks of the connection, which finds out if it is half-open."""


class Notifications(Protocol):
    """Source of notifications. Workers ask the store in any case, so a lost one only delays."""

    async def wait(self, queue: str, timeout: float) -> bool:
        """Return True after a notification of a queue, and False after `timeout` seconds."""
        ...

    def reset(self) -> None:
        """Forget the connection of another event loop or of a parent process, without a close."""
        ...

    async def close(self) -> None:
        """End the connection. A second call has no effect."""
        ...


class _NoNotifications:
    """Notifications of a database that has none."""

    async def wait(self, queue: str, timeout: float) -> bool:
        """Wait for `timeout` seconds, and return False."""
        del queue
        await asyncio.sleep(timeout)
        return False

    def reset(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


NO_NOTIFICATIONS: Final[Notifications] = _NoNotifications()


class NotifyingDatabase:
    """Notifications of PostgreSQL, by one connection of its own for all queues of a process.

    If the connection is lost, it is opened again. A pool such as PgBouncer may pass no
    notifications on, so a worker must not depend on them.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        """Prepare the connection. It is opened at the first call of `wait`.

        Args:
            connect: Function that opens a connection of asyncpg.
        """
        self._connect = connect
        self._signals = QueueSignals()
        self.is_connected = False
        """True if notifications arrive."""
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None

    async def wait(self, queue: str, timeout: float) -> bool:
        """Return True after a notification of a queue, and False after `timeout` seconds."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="store notifications")
        try:
            async with asyncio.timeout(timeout):
                await self._signals.wait(queue)
        except TimeoutError:
            return False
        return True

    def reset(self) -> None:
        """Forget the connection of another event loop or of a parent process, without a close."""
        self._task, self._connection, self.is_connected = None, None, False
        self._signals = QueueSignals()

    async def close(self) -> None:
        """End the connection. A second call has no effect."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._connection is not None:
            # An event loop that ends before the socket is closed would leave the socket open.
            with suppress(Exception):
                await self._connection.close(timeout=CLOSE_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        delay, was_connected = FIRST_DELAY, False
        while True:
            try:
                connection = await self._connect()
            except Exception as error:  # noqa: BLE001 - without a connection, workers ask the store
                log.debug("store: no notifications (%s)", type(error).__name__)
            else:
                await self._follow(connection, is_first=not was_connected)
                delay, was_connected = FIRST_DELAY, True
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - not a secret
            delay = min(2 * delay, LONGEST_DELAY)

    async def _follow(self, connection: Any, *, is_first: bool) -> None:
        """Pass notifications on until the connection is lost."""
        self._connection = connection
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._hear)
            self.is_connected = True
            if not is_first:  # notifications can have been lost while there was no connection
                self._signals.notify_all()
            while not lost.is_set():
                try:
                    async with asyncio.timeout(CHECK_SECONDS):
                        await lost.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - as above
            log.debug("store: notifications were lost (%s)", type(error).__name__)
        finally:
            self.is_connected, self._connection = False, None
            if not connection.is_closed():
                connection.terminate()

    def _hear(self, *received: Any) -> None:
        """Wake the workers of the queue in a notification (connection, pid, channel, payload)."""
        self._signals.notify(received[-1])
