"""Texts about keys that a service or the defaults for all services do not have."""

from collections.abc import Sequence

from bus.contracts.similar_names import similar_names

__all__ = ["is_similar_key", "nearest_keys", "other_place"]

CONTRACT_OPTIONS = frozenset({"criticality", "encrypted", "idempotent", "permission"})
"""Options of `@contract` that look like keys of a service."""
MAX_NEAREST = 3
"""Maximum number of keys that a text suggests."""


def other_place(key: str) -> str:
    """Return where to write a name that is not a key, or an empty text.

    Args:
        key: The unknown key, in lower case.
    """
    if key not in CONTRACT_OPTIONS:
        return ""
    return f"{key} is an option of the contract. Write {key}= in @contract(…) instead"


def nearest_keys(written: str, keys: Sequence[str]) -> str:
    """Return `; did you mean 'a' or 'b'?`, or an empty text if no key is near.

    Args:
        written: The unknown key.
        keys: Valid keys, in the same case.
    """
    nearest = _find_nearest(written, keys)
    return f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""


def is_similar_key(written: str, keys: Sequence[str]) -> bool:
    """Return True if the text is a key, or near to one. Both are in the same case."""
    return written in keys or bool(_find_nearest(written, keys))


def _find_nearest(written: str, keys: Sequence[str]) -> list[str]:
    """Return at most three keys that the writer may have meant.

    They are the keys with all words of the text, such as `breaker_consecutive_failures` for
    `breaker_failures`, and the keys with a similar spelling.
    """
    words = set(filter(None, written.casefold().split("_")))
    with_words = [key for key in keys if words and words <= set(key.casefold().split("_"))]
    return list(dict.fromkeys([*with_words, *similar_names(written, keys)]))[:MAX_NEAREST]
