"""Characters that the font lacks."""

import pytest

from bus.errors import InvalidArgument
from workers.documents.font import shown

GLYPHS = {ord(character) for character in "äЯ°א"}


def test_what_the_font_has_is_shown() -> None:
    assert shown("37 °C, ä, Я", GLYPHS) == "37 °C, ä, Я"


def test_a_symbol_that_it_has_not_is_shown_as_its_code_point() -> None:
    assert shown("fine \U0001f642\ufe0f \u2460", GLYPHS) == "fine [U+1F642] [U+2460]"


def test_a_hyphen_that_it_has_not_is_a_hyphen() -> None:
    assert shown("follow\u2011up", GLYPHS) == "follow-up"


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
