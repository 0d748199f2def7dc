"""Availability of the store, as the calls of this process find it."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from bus.errors import Unavailable
from bus.messaging.labels import one_line
from bus.messaging.timers import format_seconds, loop_time

__all__ = ["STORE_AWAY", "StoreHealth"]

log = logging.getLogger("bus.jobs")

T = TypeVar("T")

STORE_AWAY = "the store is away"
"""Beginning of the reason why a consumer is not ready."""


class StoreHealth:
    """The last known state of the store. It logs each outage once, and its end once."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._available = asyncio.Event()
        self._available.set()
        self._since = 0.0
        self.problem: str | None = None
        """Reason why the store is away, in one line. None if it is available."""

    @property
    def is_away(self) -> bool:
        """True if the last call could not reach the store."""
        return self.problem is not None

    async def call(self, operation: Awaitable[T]) -> T:
        """Await a call of the store, and note whether it was reached.

        Raises:
            Unavailable: The store could not be reached.
        """
        try:
            result = await operation
        except Unavailable as error:
            self._note_failure(str(error))
            raise
        if self.problem is not None:
            self._note_success()
        return result

    def note_timeout(self, seconds: float) -> None:
        """Note that the store has not answered a call in time."""
        self._note_failure(f"it has not answered within {format_seconds(seconds)}")

    async def wait_available(self) -> None:
        """Wait without a time limit until the store is available."""
        await self._available.wait()

    def _note_failure(self, problem: str) -> None:
        is_new = self.problem is None
        self.problem = f"{STORE_AWAY}: {one_line(problem).rstrip('.')}"
        if not is_new:
            return
        self._since = loop_time()
        self._available.clear()
        log.warning(
            "%s: %s. Jobs that arrive stay in their queues, and running handlers go on. The bus "
            "tries again until the store is back.",
            self._service,
            self.problem,
            extra={"service": self._service, "why": self.problem},
        )

    def _note_success(self) -> None:
        self.problem = None
        self._available.set()
        seconds = loop_time() - self._since
        log.info(
            "%s: the store is back after %s",
            self._service,
            format_seconds(round(seconds, 1)),
            extra={"service": self._service, "seconds": seconds},
        )
