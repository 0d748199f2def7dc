"""Commands that end with one line about what went wrong do not also log it."""

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["quietly"]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The bus's own log is silent inside."""
    log = logging.getLogger("bus")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
