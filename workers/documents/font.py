"""Text as a font can show it, without hidden losses."""

import unicodedata
from collections.abc import Set as AbstractSet

from bus import InvalidArgument
from workers.documents.text import code_point

__all__ = ["shown"]

ALIKE = str.maketrans({"\u2010": "-", "\u2011": "-"})
"""Hyphens and their replacement, for fonts that have only one."""
RIGHT_TO_LEFT = {"R", "AL", "AN"}
WORDS = {"L", "M", "N"}
"""Categories of characters in words; a text without one of its letters is not readable."""
UNSEEN = {"Cf"}
"""Category of joiners and similar characters, which are invisible."""
VARIATION_SELECTORS = range(0xFE00, 0xFE10)
"""Characters that select the form of the character before them."""
SYMBOL = "No"
"""Category of numbers in circles and similar symbols, which do not form words."""


def shown(text: str, glyphs: AbstractSet[int]) -> str:
    """Return the text; a lone symbol that the font lacks, such as an emoji, becomes its code point.

    Raise `InvalidArgument` for letters that the font lacks, and for right-to-left scripts.
    """
    return "".join(_shown(character, glyphs) for character in text.translate(ALIKE))


def _shown(character: str, glyphs: AbstractSet[int]) -> str:
    if character.isascii():
        return character
    if unicodedata.bidirectional(character) in RIGHT_TO_LEFT:
        raise _no_script()
    if ord(character) in glyphs:
        return character
    category = unicodedata.category(character)
    if category in UNSEEN or ord(character) in VARIATION_SELECTORS:
        return ""
    if category[0] in WORDS and category != SYMBOL:
        raise _no_script()
    return code_point(character)


def _no_script() -> InvalidArgument:
    problem = "the note has letters that a PDF cannot show (it can show Latin, Greek and Cyrillic)"
    return InvalidArgument(f"{problem}. Request DOCX instead.")
