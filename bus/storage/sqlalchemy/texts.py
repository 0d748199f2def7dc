"""Texts that each database can store, and that are equal only if the original texts are equal.

PostgreSQL refuses the character NUL, and no database stores a lone surrogate.
"""

import re

__all__ = ["from_text", "to_text", "to_text_or_none"]

ESCAPE = re.compile(r"\\(\\|0|u[0-9a-f]{4})")


def to_text(text: str) -> str:
    """Return the stored form of a text: NUL, lone surrogates and backslashes are escaped."""
    if text.isascii() and "\\" not in text and "\0" not in text:
        return text
    escaped = text.replace("\\", "\\\\").replace("\0", "\\0")
    return escaped.encode(errors="backslashreplace").decode()


def to_text_or_none(text: str | None) -> str | None:
    """Return the stored form of a text, or None for None."""
    return None if text is None else to_text(text)


def from_text(stored: str) -> str:
    """Return the text of a stored form."""
    return ESCAPE.sub(_unescape, stored) if "\\" in stored else stored


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code == "\\":
        return "\\"
    return "\0" if code == "0" else chr(int(code[1:], 16))
