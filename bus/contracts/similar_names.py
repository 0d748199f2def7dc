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
    return these candidates. If `name` is a candidate with two neighbours exchanged, or in another
    case, return this candidate. Upper and lower case count as equal.

    Args:
        name: Mistyped name.
        candidates: Valid names.
        cutoff: Minimum similarity of a candidate, from 0 to 1.
    """
    written, names = name.casefold(), defaultdict[str, list[str]](list)
    for candidate in sorted(candidates):
        names[candidate.casefold()].append(candidate)
    completions = [each for each in names if written and each.startswith(f"{written}.")]
    exact = completions or [each for each in names if _is_swapped(written, each)]
    close = exact or get_close_matches(written, names, n=3, cutoff=cutoff)
    similar = [candidate for each in close for candidate in names[each]][:3]
    ratios = [SequenceMatcher(None, each.casefold(), written).ratio() for each in similar]
    return [
        candidate
        for candidate, ratio in zip(similar, ratios, strict=True)
        if exact or ratio > max(ratios) - SIMILARITY_MARGIN
    ]


def _is_swapped(written: str, meant: str) -> bool:
    """Return True if `written` is equal to `meant`, or two neighbours are exchanged.

    `SequenceMatcher` finds such names hardly similar if they are short: `dya` and `day` have 0.67.

    Args:
        written: Mistyped name in lower case.
        meant: Candidate in lower case.
    """
    if len(written) != len(meant):
        return False
    places = [
        place for place, pair in enumerate(zip(written, meant, strict=True)) if len({*pair}) > 1
    ]
    if not places:
        return True
    first, last = places[0], places[-1]
    return last - first == 1 and written[first : last + 1] == meant[first : last + 1][::-1]
