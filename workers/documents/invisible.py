"""Characters that a reader cannot see, and that can change what a page shows.

The character is replaced by its code point, except in the few places in which a script or an
emoji needs it. The decisions follow properties of Unicode:

- Bidi_Control, and other characters of the category Cf: they change the order of text or hide it;
- Default_Ignorable_Code_Point: a program shows nothing for them, so they can split a number;
- control characters (Cc), private use (Co) and noncharacters: a page cannot show them reliably;
- marks in excess: UAX #15 allows 30 marks after a letter (Stream-Safe Text Format). More marks
  cover the lines above, and Python needs quadratic time to normalise them.

The category Cf also has signs that a reader sees, such as U+0600. They stay.
"""

import re
import unicodedata

__all__ = ["MAX_MARKS", "code_point", "with_code_points"]

MAX_MARKS = 30
"""Maximum number of marks after one character, as in Unicode's Stream-Safe Text Format."""
HIDDEN = re.compile(
    "["
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters, except the line feed
    "\u00ad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc"
    "\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff"  # private use, and noncharacters
    "\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 14))
    + "]"
)
"""Characters that are replaced by their code point, except in the places below."""
JOINERS = {"\u200b", "\u200c", "\u200d", "\u2060"}
"""Joiners and possible line breaks. Scripts need them between two letters."""
ZERO_WIDTH_JOINER = "\u200d"
SCRIPTS_WITH_JOINERS = {
    "ARABIC", "BALINESE", "BENGALI", "CHAM", "DEVANAGARI", "GUJARATI", "GURMUKHI", "JAVANESE",
    "KANNADA", "KHMER", "LAO", "MALAYALAM", "MONGOLIAN", "MYANMAR", "NKO", "ORIYA", "SINHALA",
    "SYRIAC", "TAMIL", "TELUGU", "THAANA", "THAI", "TIBETAN",
}  # fmt: skip
"""Scripts that need joiners, by the first word of the names of their letters."""
SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Variation selectors, which select the form of the character before them."""
MONGOLIAN_CONTROLS = re.compile("[\u180b-\u180f]")
MONGOLIAN = "MONGOLIAN"


def with_code_points(text: str) -> str:
    """Return the text with code points instead of characters that a reader cannot see."""
    if text.isascii() and text.isprintable():
        return text
    return HIDDEN.sub(_shown, _without_excess(text))


def code_point(character: str) -> str:
    """Return the text that replaces a character that cannot be shown, such as [U+0007]."""
    return f"[U+{ord(character):04X}]"


def _shown(found: re.Match[str]) -> str:
    text, place = found.string, found.start()
    before = text[place - 1] if place else ""
    after = text[place + 1] if place + 1 < len(text) else ""
    return found[0] if _is_needed(before, found[0], after) else code_point(found[0])


def _is_needed(before: str, character: str, after: str) -> bool:
    """Return True if a script or an emoji needs the character between these two characters."""
    if character in JOINERS:
        joins_letters = _is_joined(before) and _is_joined(after)
        return joins_letters or (
            character == ZERO_WIDTH_JOINER and _is_emoji(before) and _is_emoji(after)
        )
    if SELECTORS.match(character):
        # A second selector has no meaning, so a chain of selectors can only hide data.
        return bool(before) and unicodedata.category(before)[0] not in "CZ" and not _hides(before)
    return bool(MONGOLIAN_CONTROLS.match(character)) and _script(before) == MONGOLIAN


def _hides(character: str) -> bool:
    return HIDDEN.match(character) is not None


def _is_joined(character: str) -> bool:
    return (
        bool(character)
        and unicodedata.category(character)[0] in "LM"
        and _script(character) in SCRIPTS_WITH_JOINERS
    )


def _is_emoji(character: str) -> bool:
    """Return True for a symbol, a skin tone, or the selector after a symbol."""
    return character == "\ufe0f" or (
        bool(character) and unicodedata.category(character) in {"So", "Sk"} and character > "\u2000"
    )


def _script(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0] if character else ""


def _without_excess(text: str) -> str:
    """Return the text with code points instead of marks in excess of `MAX_MARKS`."""
    if text.isascii():
        return text
    shown, marks = [], 0
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        shown.append(code_point(character) if marks > MAX_MARKS else character)
    return "".join(shown)


def _is_mark(character: str) -> bool:
    return not character.isascii() and (
        unicodedata.category(character) in {"Mn", "Me"} or unicodedata.combining(character) > 0
    )
