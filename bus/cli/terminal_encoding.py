"""Output on terminals that cannot show every character of Unicode, for example with `LANG=C`.

A command never fails because of the encoding of its output. A character that the encoding lacks is
written as a similar one, or as its code.
"""

import codecs
import io
import sys
from typing import TextIO

__all__ = ["accept_any_text", "can_show"]

ERROR_HANDLER = "bus-terminal"
SIMILAR = {
    "…": "...",
    "\u2013": "-",
    "—": "-",
    "─": "-",
    "━": "-",
    "│": "|",
    "┃": "|",
    "•": "*",
    "→": "->",
    "\u2018": "'",
    "\u2019": "'",
    "“": '"',
    "”": '"',
    "\xa0": " ",
}
"""Characters of the texts of the commands and of rich, each with a similar one in ASCII."""
BRAILLE = range(0x2800, 0x2900)
"""Characters of which rich draws a spinner."""
HIGHEST_OF_FOUR_DIGITS = 0xFFFF


def accept_any_text() -> None:
    """Let the standard streams of this process accept every text, in every encoding."""
    codecs.register_error(ERROR_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERROR_HANDLER)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # An answer to a question can have bytes of another encoding.
        sys.stdin.reconfigure(errors="surrogateescape")


def can_show(text: str, stream: TextIO | None) -> bool:
    """Return True if the stream's encoding has each character of the text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace the characters that an encoding lacks, as an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_replacement, error.object[error.start : error.end])), error.end


def _replacement(character: str) -> str:
    number = ord(character)
    if number in BRAILLE:
        return "*"
    code = f"\\u{number:04x}" if number <= HIGHEST_OF_FOUR_DIGITS else f"\\U{number:08x}"
    return SIMILAR.get(character, code)
