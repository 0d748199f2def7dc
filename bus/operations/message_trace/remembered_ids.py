"""Ids as an instance remembers them: only the beginning of a long id."""

__all__ = ["is_same_id", "shorten_id"]

MAX_REMEMBERED_LENGTH = 64
"""Number of characters of a correlation or causation id that an instance remembers."""


def is_same_id(one: str, other: str) -> bool:
    """Return True if two ids are equal as far as an instance remembers them."""
    return shorten_id(one) == shorten_id(other)


def shorten_id(id_: str) -> str:
    """Return an id as an instance remembers it."""
    return id_[:MAX_REMEMBERED_LENGTH]
