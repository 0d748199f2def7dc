"""Unguessable ids.

One call to the operating system provides the random bytes of many ids. A call for each id would
take longer than all other steps together.
"""

import os
from collections import deque
from collections.abc import Callable

__all__ = ["random_hex_factory", "uuid4_factory"]

BATCH = 256
"""Number of ids from one call to the operating system."""


def random_hex_factory(size: int) -> Callable[[], str]:
    """Return a function that returns `size` random bytes in hex.

    The bytes are suitable for secrets. The returned function is thread-safe, and safe after a fork.
    """
    return _text_factory(size, bytes.hex)


def uuid4_factory() -> Callable[[], str]:
    """Return a function that returns random UUIDs (RFC 9562, version 4) as text.

    The UUIDs cannot be guessed. The returned function is thread-safe, and safe after a fork.
    """
    return _text_factory(16, _format_uuid)


VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""Mapping from a random hex digit to the variant digit of a UUID (RFC 9562).

The variant digit is `10xx` in binary. The bits `xx` are the last two bits of the random digit.
"""


def _format_uuid(data: bytes) -> str:
    """Format 16 bytes as a UUID. `uuid.UUID` takes at least three times as long."""
    digits = data.hex()
    return (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}"
        f"-{VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
    )


def _text_factory(size: int, to_text: Callable[[bytes], str]) -> Callable[[], str]:
    ready: deque[str] = deque()

    def fill() -> None:
        data = os.urandom(size * BATCH)
        ready.extend(to_text(data[at : at + size]) for at in range(0, len(data), size))

    def take() -> str:
        while True:
            try:
                return ready.popleft()
            except IndexError:
                fill()

    # After a fork, the child must not return ids that the parent returns.
    os.register_at_fork(after_in_child=ready.clear)
    return take
