"""Conversion of dictated text to text that a document can hold. No visible character is lost.

All kinds of line break are treated alike (CR LF, vertical tab, NEL, U+2028). All kinds of paragraph
end are treated alike (an empty line, form feed, U+2029). A character that a reader cannot see is
replaced by its code point, such as [U+0007]. With one, a page could show 10 mg as 01.
The module `invisible` has the list.
"""

import re
import unicodedata

from workers.documents.invisible import with_code_points

__all__ = ["paragraphs", "plain"]

LINE_BREAKS = re.compile("\r\n|[\r\v\x85\u2028]")
PARAGRAPH_BREAKS = re.compile("[\f\u2029]")
EMPTY_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)*\n")
TAB = " " * 4
SOFT_HYPHENS = re.compile(r"(?<=[^\W\d_])\u00ad+(?=[^\W\d_])")
"""Marks of possible breaks between two letters.

On a page this mark is invisible, or a hyphen that the author did not write. Beside a digit or a
sign the mark stays, and is shown as its code point.
"""
BYTE_ORDER_MARK = "\ufeff"
"""Mark at the beginning of a file. It is not a part of the file's text."""


def paragraphs(text: str) -> list[list[str]]:
    """Return the paragraphs of a text. Each paragraph is a list of lines that are not empty.

    The result is empty if the text has no visible characters.
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    text = PARAGRAPH_BREAKS.sub("\n\n", LINE_BREAKS.sub("\n", text)).replace("\t", TAB)
    # Limit the marks before the normalisation, which needs quadratic time for a long run.
    text = unicodedata.normalize("NFC", with_code_points(SOFT_HYPHENS.sub("", text)))
    blocks = (
        [line.rstrip() for line in block.split("\n") if line.strip()]
        for block in EMPTY_LINES.split(text)
    )
    return [block for block in blocks if block]


def plain(text: str) -> str:
    """Return the text as one line, without line breaks."""
    return " ".join(line.strip() for block in paragraphs(text) for line in block)
