"""The search for valid names that are similar to a mistyped name."""

from collections import defaultdict
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

__all__ = ["similar_names"]

SIMILARITY_MARGIN = 0.1
"""Maximum difference in similarity between a suggestion and the best suggestion.

All names of one service are similar, because they share a prefix. The limit excludes most of them.
"""


def similar_names(name: str, candidates: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """Return at most three candidates that the writer of `name` may have meant, the best first.

    If `name` is the beginning of dotted candidates, such as `billing.quote` of `billing.quote.v1`,
    return these candidates. Upper and lower case count as equal.

    Args:
        name: Mistyped name.
        candidates: Valid names.
        cutoff: Minimum similarity of a candidate, from 0 to 1.
    """
    mistyped, names = name.lower(), defaultdict[str, list[str]](list)
    for candidate in sorted(candidates):
        names[candidate.lower()].append(candidate)
    lowered = [each for each in names if mistyped and each.startswith(f"{mistyped}.")]
    completions = [candidate for each in lowered for candidate in names[each]]
    close = get_close_matches(mistyped, names, n=3, cutoff=cutoff)
    similar = (completions or [candidate for each in close for candidate in names[each]])[:3]
    ratios = [SequenceMatcher(None, each.lower(), mistyped).ratio() for each in similar]
    return [
        candidate
        for candidate, ratio in zip(similar, ratios, strict=True)
        if completions or ratio > max(ratios) - SIMILARITY_MARGIN
    ]
