"""Broken variants of the bus, made at run time in a sender's or worker's process: the suite has to notice each."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["VARIABLE", "sabotaged"]

VARIABLE = "CHAOS_SABOTAGE"


@contextmanager
def sabotaged(name: str | None) -> Iterator[None]:
    """The block runs with this variant; with None as it is."""
    yield
