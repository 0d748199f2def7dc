"""Characters that a reader cannot see, and that could change what a page shows."""

import sys
import unicodedata
from time import process_time

import pytest

from workers.documents.invisible import MAX_MARKS
from workers.documents.text import paragraphs, plain

BIDI_CONTROL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""All characters with the property Bidi_Control in Unicode's PropList.txt."""
VISIBLE_FORMATS = {*range(0x600, 0x606), 0x6DD, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Characters with the property Prepended_Concatenation_Mark, which a reader sees."""
BREAKS = {"\t", "\n", "\v", "\f", "\r", "\x85", "\u2028", "\u2029"}
"""Characters that become a space, a line break or a paragraph break."""


@pytest.mark.parametrize("character", BIDI_CONTROL, ids=lambda c: f"U+{ord(c):04X}")
def test_each_control_of_direction_is_shown_as_its_code_point(character: str) -> None:
    assert plain(f"5{character}-10 mg") == f"5[U+{ord(character):04X}]-10 mg"
    assert plain(f"א{character}א") == f"א[U+{ord(character):04X}]א"


def test_a_character_that_unicode_calls_a_control_or_a_format_is_never_hidden_in_a_number() -> None:
    hidden = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in {"Cc", "Cf", "Co"} and character not in BREAKS
        if ord(character) not in VISIBLE_FORMATS
    ]
    assert len(hidden) > 137_000  # two planes of private use are among them
    text = plain("".join(f"1{character}0" for character in hidden))
    assert text == "".join(f"1[U+{ord(character):04X}]0" for character in hidden)


@pytest.mark.parametrize(
    "character",
    [
        "\u00ad", "\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180e", "\u200b",
        "\u200c", "\u200d", "\u2060", "\u2064", "\u2065", "\u206a", "\u3164", "\ufeff", "\uffa0",
        "\ufff0", "\ufff9", "\ufffa", "\ufffb", "\ufffc", "\U0001bca0", "\U0001d173", "\U000e0001",
        "\U000e0041", "\U000e007f", "\U000e0fff", "\ue000", "\U0001ffff",
    ],
    ids=lambda c: f"U+{ord(c):04X}",
)  # fmt: skip
def test_a_character_that_programs_ignore_is_shown_in_a_number(character: str) -> None:
    assert plain(f"1{character}0 mg") == f"1[U+{ord(character):04X}]0 mg"


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
        "\u0e1b\u200b\u0e27",
        "\U0001f469\u200d\u2695\ufe0f",
        "\U0001f469\U0001f3fd\u200d\u2695\ufe0f",
        "1\ufe0f\u20e3",
        "\u845b\U000e0100",
        "\u1820\u180b",
    ],
    ids=["Persian", "Hindi", "Thai", "emoji", "skin tone", "keycap", "ideograph", "Mongolian"],
)
def test_a_character_that_a_script_or_an_emoji_needs_stays(text: str) -> None:
    assert plain(text) == text


def test_a_chain_of_variation_selectors_hides_no_data() -> None:
    assert plain("5\ufe0f\ufe01\ufe02 mg") == "5\ufe0f[U+FE01][U+FE02] mg"


def test_a_soft_hyphen_between_letters_is_left_out() -> None:
    assert plain("sub\u00adacute") == "subacute"


def test_marks_in_excess_are_shown_as_code_points() -> None:
    assert plain("x" + "\u0336" * (MAX_MARKS + 2)) == "x" + "\u0336" * MAX_MARKS + "[U+0336]" * 2


@pytest.mark.parametrize(
    "marks", ["\u0301\u0327" * 25_000, "\u0301" * 25_000 + "\u0327" * 25_000], ids=["mixed", "runs"]
)
def test_combining_marks_take_time_that_is_linear_in_their_number(marks: str) -> None:
    begun = process_time()
    assert paragraphs(f"a{marks}")
    # The normalisation of this text took 2 to 4 s, and held the GIL for all this time.
    assert process_time() - begun < 1
