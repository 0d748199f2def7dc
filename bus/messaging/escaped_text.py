r"""Escapes of the characters that must not reach a terminal or a log.

Other services, brokers and files choose texts that the bus shows. A control character moves the
cursor, a line end forges a line, and a change of the writing direction forges a word. An invisible
character makes two texts look the same, or hides a third. A lone surrogate cannot be written.

Each of these characters is shown as its code, such as `\u202e`. Letters, marks and emoji stay as
they are. A joiner or a variation selector stays only if a script or an emoji needs it there.
"""

import re
import unicodedata

__all__ = ["escape_json", "escape_text", "one_line", "shorten_spaces"]

CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
"""C0, DEL and C1, except tab and newline (category Cc)."""
SEPARATORS = r"\u2028\u2029"
"""Line and paragraph separators (Zl and Zp)."""
FORMATS = (
    r"\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
)
"""Format characters (Cf) with all controls of the direction, except signs that are visible.

The last range has the tags, which hide a text in a text.
"""
INVISIBLE = r"\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufff0-\ufff8"
"""Letters and marks that are not drawn (`Default_Ignorable_Code_Point`)."""
JOINERS = r"\u200c\u200d"
SELECTORS = r"\ufe00-\ufe0f"
"""Variation selectors. They select the form of the character before them, if it has forms."""
UNWRITABLE = r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
"""Lone surrogates (Cs), which UTF-8 cannot express, and noncharacters."""
JOINED = re.compile(
    r"[\u0600-\u085f\u0860-\u109f\u1780-\u18af\u1900-\u194f\u1a00-\u1aaf\u1b00-\u1c4f"
    r"\u1cd0-\u1cff\ua800-\ua82f\ua840-\ua8ff\ua930-\ua95f\ua980-\uaa7f\uaae0-\uaaff\uabc0-\uabff"
    r"\ufb50-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc"
    r"\U00010a00-\U00010a5f\U00010d00-\U00010d3f\U00011000-\U00011fff\U0001e900-\U0001e95f]"
)
"""Blocks of the scripts that need a joiner between two letters: Arabic, Indic and related ones."""
EMOJI = re.compile(
    r"[\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u23cf\u23e9-\u23f3"
    r"\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u27bf\u2934\u2935\u2b05-\u2b07"
    r"\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    r"\U0001f000-\U0001f6ff\U0001f7e0-\U0001f7ff\U0001f900-\U0001faff]"
)
"""Characters with a form as text and a form as emoji, and their skin tones."""
KEYCAP = re.compile("[0-9#*]\ufe0f\u20e3")
"""A key of a telephone: a digit, a selector, and the mark of a key."""
IDEOGRAPH = r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""Characters that have variants. U+E0100 to U+E01EF select a variant, as in Japanese names."""
WITH_FORMS = re.compile(
    IDEOGRAPH + r"|[\u1000-\u109f\ua840-\ua877\uaa60-\uaa7f\u2190-\u22ff\u2a00-\u2aff\u3001\u3002"
    r"\uff01\uff0c\uff0e\uff1a\uff1b\uff1f]"
)
"""Characters of which U+FE00 to U+FE02 select a form (`StandardizedVariants.txt`)."""

UNSAFE = re.compile(
    rf"[{CONTROLS}{SEPARATORS}{FORMATS}{INVISIBLE}{UNWRITABLE}{JOINERS}{SELECTORS}]"
    rf"|(?<!{IDEOGRAPH})[\U000e0100-\U000e0fff]|[\U000e01f0-\U000e0fff]"
)
LINE_SPACE = re.compile(r"[\t-\r\x1c-\x1e\x85\u2028\u2029]+")
"""Runs of tabs and line ends, at which `str.splitlines` and terminals begin a new line."""
MAX_SPACES = 8
TOO_MANY_SPACES = " " * (MAX_SPACES + 1)
LONG_SPACE = re.compile(rf"[ \xa0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000]{{{MAX_SPACES + 1},}}")
"""Runs of blank characters. A long run moves the text after it to a row of its own."""
HIGHEST_OF_FOUR_DIGITS = 0xFFFF


def escape_text(text: str) -> str:
    r"""Return the text with each unsafe character as its code, except tab and newline.

    A code has the form `\u202e` or `\U000e0041`, as in Python's source.
    """
    if text.isascii() and text.isprintable():
        return text
    return UNSAFE.sub(_code_of, text)


def one_line(text: str) -> str:
    """Return the text as one line: a space for each run of line ends and tabs, and escapes.

    A run of spaces is cut to `MAX_SPACES`.
    """
    if text.isascii() and text.isprintable() and TOO_MANY_SPACES not in text:
        return text
    return UNSAFE.sub(_code_of, shorten_spaces(LINE_SPACE.sub(" ", text)))


def shorten_spaces(text: str) -> str:
    """Return the text with a space for each tab, and at most `MAX_SPACES` spaces in a run.

    A terminal continues a long line on the next row. If an attacker could choose the number of
    spaces, the rest of the text could look like a row of the command.
    """
    return LONG_SPACE.sub(" " * MAX_SPACES, text.replace("\t", " "))


def escape_json(text: str) -> str:
    r"""Return JSON with each unsafe character as a JSON escape, `\u202e`.

    The escapes change no value. A character above U+FFFF becomes two escapes.
    """
    if text.isascii() and text.isprintable():
        return text
    return UNSAFE.sub(_json_code_of, text)


def _is_needed(match: re.Match[str]) -> bool:
    """Return True if a script or an emoji needs the joiner or the variation selector.

    A second selector has no meaning, so it can only hide data.
    """
    character, text, at = match[0], match.string, match.start()
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if character in "\u200c\u200d":
        return (_is_joined(before) and _is_joined(after)) or (
            character == "\u200d"
            and _ends_with_emoji(text[max(at - 2, 0) : at])
            and _is_emoji(after)
        )
    if character in "\ufe0e\ufe0f":
        return _is_emoji(before) or KEYCAP.match(text, max(at - 1, 0)) is not None
    return character in "\ufe00\ufe01\ufe02" and WITH_FORMS.match(before) is not None


def _is_joined(character: str) -> bool:
    is_letter = JOINED.match(character) and unicodedata.category(character)[0] in "LM"
    return bool(is_letter) and UNSAFE.match(character) is None


def _is_emoji(character: str) -> bool:
    return EMOJI.match(character) is not None


def _ends_with_emoji(text: str) -> bool:
    return _is_emoji(text.removesuffix("\ufe0f")[-1:])


def _code_of(match: re.Match[str]) -> str:
    if _is_needed(match):
        return match[0]
    number = ord(match[0])
    return f"\\u{number:04x}" if number <= HIGHEST_OF_FOUR_DIGITS else f"\\U{number:08x}"


def _json_code_of(match: re.Match[str]) -> str:
    if _is_needed(match):
        return match[0]
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
