"""A printer in a thread, so that a slow terminal does not delay the reader of the tap."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["MAX_BUFFERED", "Printer"]

T = TypeVar("T")

MAX_BUFFERED = 10_000
"""Maximum number of items that wait for the terminal."""
CLOSE_SECONDS = 2.0
"""Maximum seconds to print the remaining items at the end."""


class Printer(Generic[T]):
    """A bounded buffer of items, which a thread prints. A full buffer drops its oldest item."""

    def __init__(self, show: Callable[[T], None], *, limit: int = MAX_BUFFERED) -> None:
        """Start the thread.

        Args:
            show: Function that prints one item. It runs in the thread.
            limit: Maximum number of items in the buffer.
        """
        self.dropped = 0
        """Number of items that were not printed, because the buffer was full."""
        self._show = show
        self._items: deque[T] = deque()
        self._limit = limit
        self._changed = threading.Condition()
        self._closing = False
        # A daemon does not keep the process alive if the terminal does not take its line.
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
        self._thread.start()

    def add(self, item: T) -> None:
        """Add an item. The call never waits for the terminal."""
        with self._changed:
            if len(self._items) >= self._limit:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify()

    def close(self) -> None:
        """Print the remaining items, for at most `CLOSE_SECONDS`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        # A closed pipe ends the command by itself; see `stop_when_closed`.
        with suppress(OSError, ValueError):
            while True:
                with self._changed:
                    while not self._items and not self._closing:
                        self._changed.wait()
                    if not self._items:
                        return
                    item = self._items.popleft()
                self._show(item)
