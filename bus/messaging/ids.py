"""Unguessable ids, many from each call to the operating system, which takes longer than all else that a message's id costs."""

import os
from collections import deque
from collections.abc import Callable

__all__ = ["random_hex_factory", "uuid4_factory"]

BATCH = 256


def random_hex_factory(size: int) -> Callable[[], str]:
    """A function that gives `size` random bytes in hex, fit for secrets; safe in threads, and after a fork."""
    return _source(size, bytes.hex)


def uuid4_factory() -> Callable[[], str]:
    """A function that gives random UUIDs (RFC 9562, version 4) as text; fit and safe as `hex_source`."""
    return _source(16, _uuid)


VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit with the two bits of RFC 9562's variant in front of its last two."""


def _uuid(data: bytes) -> str:
    """By hand: `uuid.UUID` takes three times as long, which is 2 µs of each message."""
    digits = data.hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def _source(size: int, shown: Callable[[bytes], str]) -> Callable[[], str]:
    ready: deque[str] = deque()

    def fill() -> None:
        data = os.urandom(size * BATCH)
        ready.extend(shown(data[at : at + size]) for at in range(0, len(data), size))

    def take() -> str:
        while True:
            try:
                return ready.popleft()
            except IndexError:
                fill()

    os.register_at_fork(after_in_child=ready.clear)  # a child must not give out its parent's
    return take
