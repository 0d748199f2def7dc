"""Suggestions for mistyped names."""

from collections.abc import Iterable

from bus.contracts.similar_names import similar_names

__all__ = ["did_you_mean"]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean 'a' or 'b'?`, or an empty string if no candidate is similar.

    Args:
        name: Mistyped name.
        candidates: Valid names.
    """
    suggestions = similar_names(name, candidates)
    return f"; did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
