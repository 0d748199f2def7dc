"""What a font can show of a text, where nothing may disappear unseen."""

import unicodedata
from collections.abc import Set as AbstractSet

from bus import InvalidArgument
from workers.documents.text import code_point

__all__ = ["shown"]

ALIKE = str.maketrans({"\u2010": "-", "\u2011": "-"})
"""Hyphens, for the fonts that have one only."""
RIGHT_TO_LEFT = {"R", "AL", "AN"}
WORDS = {"L", "M", "N"}
"""Categories that words are made of; one that is missing leaves a text that cannot be read."""
UNSEEN = {"Cf"}
"""Joiners and the like, which have no look of their own."""
VARIATION_SELECTORS = range(0xFE00, 0xFE10)
"""Say how to draw what they follow."""
SYMBOL = "No"
"""Numbers in circles and the like; not what words are made of."""


def shown(text: str, glyphs: AbstractSet[int]) -> str:
    """The text with a lone symbol that the font has not, such as an emoji, as its code point.

    Raises `InvalidArgument` for letters that the font has not, and for scripts that are written from right to left.
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
    return InvalidArgument("the note has letters that its PDF cannot show (it can Latin, Greek and Cyrillic); ask for DOCX instead")
