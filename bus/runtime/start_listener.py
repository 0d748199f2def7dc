"""The listener that learns of the start of a service, while requests wait for it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from bus.errors import BusError
from bus.runtime.discovery.asker import Announcements

__all__ = ["Listen", "StartListener"]

log = logging.getLogger("bus.client")

Listen = Callable[[], Announcements]
"""A function that starts to listen to announcements. The first one can raise an error."""

LISTEN_AFTER_SECONDS = 1.0
"""Seconds after which a waiting client listens. Short waits must not create a queue each time."""

PAUSE_SECONDS = 600.0
"""Seconds without an attempt to listen after a refusal. The broker's refusal logs a warning."""


class StartListener:
    """A task that passes on the starts of services.

    Without discovery, or without the right to listen, it does nothing. The waiting requests are
    then found by their next publish.
    """

    def __init__(self, on_started: Callable[[str], None]) -> None:
        """Create the listener.

        Args:
            on_started: Function that is called with the name of a service that has started.
        """
        self.announcements: Listen | None = None
        """The source of announcements. The bus sets it, if it has one."""
        self._on_started = on_started
        self._task: asyncio.Task[None] | None = None
        self._paused_until = 0.0

    def begin(self) -> None:
        """Start to listen, if a source is set."""
        loop = asyncio.get_running_loop()
        if self.announcements is not None and loop.time() >= self._paused_until:
            self._task = loop.create_task(self._listen(self.announcements))

    def end(self) -> None:
        """Stop to listen."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _listen(self, announcements: Listen) -> None:
        await asyncio.sleep(LISTEN_AFTER_SECONDS)
        async with aclosing(announcements()) as stream:
            try:
                async for announcement in stream:
                    if announcement.event == "started":
                        self._on_started(announcement.service)
            except BusError as error:
                log.debug("no start of a service is heard: %s", error, extra={"why": str(error)})
                self._paused_until = asyncio.get_running_loop().time() + PAUSE_SECONDS
