"""What a mistyped name may have meant."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

__all__ = ["did_you_mean"]

NEARLY = 0.1
"""How much less alike than the nearest a suggestion may be: names of one service are all alike."""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?`, or nothing where none is near."""
    known = sorted(candidates)
    begun = [each for each in known if name and each.startswith(f"{name}.")]
    near = (begun or get_close_matches(name, known, n=3))[:3]
    likeness = [SequenceMatcher(None, each, name).ratio() for each in near]
    nearest = [
        each
        for each, ratio in zip(near, likeness, strict=True)
        if begun or ratio > max(likeness) - NEARLY
    ]
    return f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
