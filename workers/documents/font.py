"""Conversion of text to characters that a font can show. No visible character is lost."""

import unicodedata
from collections.abc import Set as AbstractSet

from bus import InvalidArgument
from workers.documents.invisible import JOINERS, SELECTORS, code_point

__all__ = ["shown"]

ALIKE = str.maketrans({"\u2010": "-", "\u2011": "-"})
"""Special hyphens and their replacement, for fonts that have only the ASCII hyphen."""
RIGHT_TO_LEFT = {"R", "AL", "AN"}
WORDS = {"L", "M", "N"}
"""First letters of the Unicode categories of characters that form words and numbers.

If the font lacks such a character, the text would not be readable.
"""
SYMBOL = "No"
"""Unicode category of numbers in circles and similar symbols, which do not form words."""


def shown(text: str, glyphs: AbstractSet[int]) -> str:
    """Return the text with characters that the font can show.

    A symbol that the font lacks, such as an emoji, becomes its code point. Raise `InvalidArgument`
    if the text has letters that the font lacks, or a right-to-left script.
    """
    return "".join(_shown(character, glyphs) for character in text.translate(ALIKE))


def _shown(character: str, glyphs: AbstractSet[int]) -> str:
    if character.isascii():
        return character
    if unicodedata.bidirectional(character) in RIGHT_TO_LEFT:
        raise _no_script()
    if ord(character) in glyphs:
        return character
    # Other characters of the category Cf are visible, such as U+110BD.
    if character in JOINERS or SELECTORS.match(character):
        return ""
    category = unicodedata.category(character)
    if category[0] in WORDS and category != SYMBOL:
        raise _no_script()
    return code_point(character)


def _no_script() -> InvalidArgument:
    problem = "the note has letters that a PDF cannot show (it can show Latin, Greek and Cyrillic)"
    return InvalidArgument(f"{problem}. Request DOCX instead.")
