"""Suggestions for mistyped names."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

__all__ = ["did_you_mean"]

SIMILARITY_MARGIN = 0.1
"""Maximum difference in similarity between a suggestion and the best suggestion.

All names of one service are similar, because they share a prefix. The limit excludes most of them.
"""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean 'a' or 'b'?`, or an empty string if no candidate is similar.

    Args:
        name: Mistyped name.
        candidates: Valid names.
    """
    names = sorted(candidates)
    completions = [candidate for candidate in names if name and candidate.startswith(f"{name}.")]
    similar = (completions or get_close_matches(name, names, n=3))[:3]
    ratios = [SequenceMatcher(None, candidate, name).ratio() for candidate in similar]
    suggestions = [
        candidate
        for candidate, ratio in zip(similar, ratios, strict=True)
        if completions or ratio > max(ratios) - SIMILARITY_MARGIN
    ]
    return f"; did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
