r"""Escapes of the characters that must not reach a terminal or a log.

Other services, brokers and files choose texts that the bus shows. A control character moves the
cursor, a line end forges a line, and a change of the writing direction forges a word. An invisible
character makes two texts look the same, or hides a third. A lone surrogate cannot be written.

Each of these characters is shown as its code, such as `\u202e`. Letters, marks, emoji, and the
joiners inside words of other scripts stay as they are.
"""

import re

__all__ = ["escape_json", "escape_text", "one_line"]

CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
"""C0, DEL and C1, except tab and newline (category Cc)."""
SEPARATORS = r"\u2028\u2029"
"""Line and paragraph separators (Zl and Zp)."""
FORMATS = (
    r"\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
)
"""Format characters (Cf) with all controls of the direction, except signs that are visible.

The joiners have a rule of their own. The last range has the tags, which hide a text in a text.
"""
INVISIBLE = r"\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufff0-\ufff8"
"""Letters and marks that are not drawn (`Default_Ignorable_Code_Point`).

U+FE00 to U+FE0F are not in this set, because they select the form of an emoji.
"""
UNWRITABLE = r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
"""Lone surrogates (Cs), which UTF-8 cannot express, and noncharacters."""
JOINED = r"[\u0600-\u1fff\u2100-\ufdcf\ufdf0-\ufdff\ufe0f\ufe70-\ufefc\U00010000-\U0001ffff]"
"""Characters of the scripts and emoji that need a joiner (U+200C and U+200D) between them."""
IDEOGRAPH = r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""Characters that have variants. U+E0100 to U+E01EF select a variant, as in Japanese names."""

UNSAFE = re.compile(
    rf"[{CONTROLS}{SEPARATORS}{FORMATS}{INVISIBLE}{UNWRITABLE}]"
    rf"|(?<!{JOINED})[\u200c\u200d]|[\u200c\u200d](?!{JOINED})"
    rf"|(?<!{IDEOGRAPH})[\U000e0100-\U000e0fff]|[\U000e01f0-\U000e0fff]"
)
LINE_SPACE = re.compile(r"[\t-\r\x1c-\x1e\x85\u2028\u2029]+")
"""Runs of tabs and line ends, at which `str.splitlines` and terminals begin a new line."""
HIGHEST_OF_FOUR_DIGITS = 0xFFFF


def escape_text(text: str) -> str:
    r"""Return the text with each unsafe character as its code, except tab and newline.

    A code has the form `\u202e` or `\U000e0041`, as in Python's source.
    """
    if text.isascii() and text.isprintable():
        return text
    return UNSAFE.sub(_code_of, text)


def one_line(text: str) -> str:
    """Return the text as one line: a space for each run of line ends and tabs, and escapes."""
    if text.isascii() and text.isprintable():
        return text
    return UNSAFE.sub(_code_of, LINE_SPACE.sub(" ", text))


def escape_json(text: str) -> str:
    r"""Return JSON with each unsafe character as a JSON escape, `\u202e`.

    The escapes change no value. A character above U+FFFF becomes two escapes.
    """
    if text.isascii() and text.isprintable():
        return text
    return UNSAFE.sub(_json_code_of, text)


def _code_of(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\u{number:04x}" if number <= HIGHEST_OF_FOUR_DIGITS else f"\\U{number:08x}"


def _json_code_of(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
