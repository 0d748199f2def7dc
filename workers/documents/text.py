"""What a clinician may dictate becomes what a document can carry, and nothing of it disappears unseen.

Every way of breaking a line is one (CR LF, vertical tab, NEL, U+2028), and so is every way of ending a paragraph (an empty line, form
feed, U+2029). What no page can show stands there as its code point, such as [U+0007]: control characters, which XML and PDF cannot
carry; noncharacters; and the controls that turn the direction of text, since with them 10 mg could be shown as 01.
"""

import re
import unicodedata

__all__ = ["code_point", "paragraphs", "plain"]

LINE_BREAKS = re.compile("\r\n|[\r\v\x85\u2028]")
PARAGRAPH_BREAKS = re.compile("[\f\u2029]")
EMPTY_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)*\n")
TAB = " " * 4
SOFT_HYPHEN = "\u00ad"
"""Says where a word may be broken; on a page it is nothing, or a hyphen that nobody wrote."""
BYTE_ORDER_MARK = "\ufeff"
UNCARRIED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]")
"""Noncharacters beyond the first plane are left to fonts: XML carries them."""


def paragraphs(text: str) -> list[list[str]]:
    """The text's paragraphs, each a list of lines, none of them empty; an empty list for a text that shows nothing."""
    text = PARAGRAPH_BREAKS.sub("\n\n", LINE_BREAKS.sub("\n", text)).replace("\t", TAB)
    text = text.replace(SOFT_HYPHEN, "").replace(BYTE_ORDER_MARK, "")
    text = UNCARRIED.sub(lambda found: code_point(found[0]), unicodedata.normalize("NFC", text))
    blocks = ([line.rstrip() for line in block.split("\n") if line.strip()] for block in EMPTY_LINES.split(text))
    return [block for block in blocks if block]


def plain(text: str) -> str:
    """The text on one line."""
    return " ".join(line.strip() for block in paragraphs(text) for line in block)


def code_point(character: str) -> str:
    """How a character is shown that cannot be."""
    return f"[U+{ord(character):04X}]"
