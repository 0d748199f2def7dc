"""Unguessable ids, many from each call to the operating system, which takes longer than all else that a message's id costs."""

import os
from collections import deque
from collections.abc import Callable

__all__ = ["hex_source"]

BATCH = 256


def hex_source(size: int) -> Callable[[], str]:
    """A function that gives `size` random bytes in hex, fit for secrets; safe in threads, and after a fork."""
    ready: deque[str] = deque()

    def fill() -> None:
        data = os.urandom(size * BATCH)
        ready.extend(data[at : at + size].hex() for at in range(0, len(data), size))

    def take() -> str:
        while True:
            try:
                return ready.popleft()
            except IndexError:
                fill()

    os.register_at_fork(after_in_child=ready.clear)  # a child must not give out its parent's
    return take
