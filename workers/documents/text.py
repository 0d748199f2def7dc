"""Conversion of dictated text to text that a document can hold. No visible character is lost.

All kinds of line break are treated alike (CR LF, vertical tab, NEL, U+2028). All kinds of paragraph
end are treated alike (an empty line, form feed, U+2029). Three kinds of characters are replaced by
their code point, such as [U+0007]:

- control characters, which XML and PDF cannot hold;
- noncharacters;
- controls that change the direction of text, because with them a page could show 10 mg as 01.
"""

import re
import unicodedata

__all__ = ["code_point", "paragraphs", "plain"]

LINE_BREAKS = re.compile("\r\n|[\r\v\x85\u2028]")
PARAGRAPH_BREAKS = re.compile("[\f\u2029]")
EMPTY_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)*\n")
TAB = " " * 4
SOFT_HYPHEN = "\u00ad"
"""Character that marks a possible break in a word.

On a page it is invisible, or a hyphen that the author did not write.
"""
BYTE_ORDER_MARK = "\ufeff"
UNCARRIED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]"
)
"""Characters that are replaced by their code point.

Noncharacters outside the Basic Multilingual Plane are not included, because XML can hold them. The
font decides how to show them.
"""


def paragraphs(text: str) -> list[list[str]]:
    """Return the paragraphs of a text. Each paragraph is a list of lines that are not empty.

    The result is empty if the text has no visible characters.
    """
    text = PARAGRAPH_BREAKS.sub("\n\n", LINE_BREAKS.sub("\n", text)).replace("\t", TAB)
    text = text.replace(SOFT_HYPHEN, "").replace(BYTE_ORDER_MARK, "")
    text = UNCARRIED.sub(lambda found: code_point(found[0]), unicodedata.normalize("NFC", text))
    blocks = (
        [line.rstrip() for line in block.split("\n") if line.strip()]
        for block in EMPTY_LINES.split(text)
    )
    return [block for block in blocks if block]


def plain(text: str) -> str:
    """Return the text as one line, without line breaks."""
    return " ".join(line.strip() for block in paragraphs(text) for line in block)


def code_point(character: str) -> str:
    """Return the text that replaces a character that cannot be shown, such as [U+0007]."""
    return f"[U+{ord(character):04X}]"
