"""Numbers with their nouns, for texts that people read."""

__all__ = ["count_noun"]


def count_noun(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 message` or `2 messages`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
