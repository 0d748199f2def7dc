"""Characters that the font lacks."""

import sys
import unicodedata

import pytest

from bus.errors import InvalidArgument
from workers.documents.font import shown
from workers.documents.text import plain

GLYPHS = {ord(character) for character in "äЯ°א"}


def test_what_the_font_has_is_shown() -> None:
    assert shown("37 °C, ä, Я", GLYPHS) == "37 °C, ä, Я"


def test_a_symbol_that_it_has_not_is_shown_as_its_code_point() -> None:
    assert shown("fine \U0001f642\ufe0f \u2460", GLYPHS) == "fine [U+1F642] [U+2460]"


def test_a_hyphen_that_it_has_not_is_a_hyphen() -> None:
    assert shown("follow\u2011up", GLYPHS) == "follow-up"


@pytest.mark.parametrize("between", ["5{}0", "a{}b", "疼{}痛"])
def test_no_format_character_is_lost(between: str) -> None:
    formats = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) == "Cf"]
    assert {"\u0600", "\u06dd", "\u070f", "\u0891", "\u08e2", "\U000110bd"} <= set(formats)
    lost = [
        f"U+{ord(character):04X}"
        for character in formats
        if not (is_refused(text := plain(between.format(character))))
        and f"[U+{ord(character):04X}]" not in shown(text, GLYPHS)
    ]
    # Between two letters, a soft hyphen is a place for a line break.
    assert lost == (["U+00AD"] if between == "a{}b" else [])


def is_refused(text: str) -> bool:
    try:
        shown(text, GLYPHS)
    except InvalidArgument:
        return True
    return False


def test_a_selector_of_each_kind_is_invisible() -> None:
    assert shown("a\ufe0fb\U000e0100", GLYPHS) == "ab"


def test_joiners_have_no_look_of_their_own() -> None:
    assert shown("a\u200db\u200b", GLYPHS) == "ab"


@pytest.mark.parametrize(
    "text",
    ["疼痛", "ऐ", "א", "ألم"],
    ids=["Chinese", "Hindi", "Hebrew, which would be turned around", "Arabic"],
)
def test_a_script_that_it_cannot_show_is_refused_without_showing_the_text(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Request DOCX instead") as raised:
        shown(f"pain {text}", GLYPHS)
    assert text not in str(raised.value)
