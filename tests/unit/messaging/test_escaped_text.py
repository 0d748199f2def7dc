"""Texts of others on a terminal: what is escaped, and what stays readable."""

import json
import sys
import unicodedata

import pytest

from bus.messaging.escaped_text import escape_json, escape_text, one_line

EVERYTHING = [chr(number) for number in range(sys.maxunicode + 1)]
VISIBLE_SIGNS = {
    *map(chr, (*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD))
}
"""Format characters that are drawn: signs of Arabic, Syriac and Kaithi before a number or word."""
BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_every_control_format_separator_and_surrogate_is_escaped() -> None:
    raw = {
        character
        for character in EVERYTHING
        if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"}
        and escape_text(character) == character
    }
    assert raw == {"\t", "\n"} | VISIBLE_SIGNS


def test_every_control_of_the_direction_is_escaped_inside_words_of_all_scripts() -> None:
    for control in BIDI_CONTROLS:
        for around in "aבم字\U0001f600":
            assert escape_text(f"{around}{control}{around}") == (
                f"{around}\\u{ord(control):04x}{around}"
            )


def test_letters_digits_and_symbols_are_not_escaped() -> None:
    kinds = ("L", "N", "P", "S", "M")
    changed = {
        f"{ord(character):04X}"
        for character in EVERYTHING
        if unicodedata.category(character)[0] in kinds and escape_text(character) != character
    }
    invisible = {"034F", "115F", "1160", "17B4", "17B5", "180B", "180C", "180D", "180F", "3164"}
    selectors = {f"{number:04X}" for number in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))}
    egyptian = {f"{number:04X}" for number in range(0x13440, 0x13456)}
    assert changed - egyptian == invisible | selectors | {"FFA0"}


@pytest.mark.parametrize(
    "text",
    [
        "Größe: naïve Ελληνικά",
        "e\u0301 a\u0308",
        "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 👍🏽 ☃\ufe0f",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "क्\u200dष",
        "辻\U000e0100",
        "1\ufe0f\u20e3 🏳\ufe0f\u200d🌈 👩🏽\u200d🚒 ☎\ufe0e \u2139\ufe0f",
        "神\ufe00 ∩\ufe00 、\ufe01",
        "ක්\u200dෂ",
        "שלום مرحبا",
    ],
)
def test_words_and_emoji_stay_readable(text: str) -> None:
    assert escape_text(text) == one_line(text) == escape_json(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("admin\u200d", "admin\\u200d"),
        ("ad\u200cmin", "ad\\u200cmin"),
        ("字\u200d\u200d字", "字\\u200d\\u200d字"),
        ("a\U000e0041\U000e007f", "a\\U000e0041\\U000e007f"),
        ("a\U000e0100", "a\\U000e0100"),
        ("\x1b]0;x\x07\x9b2J\x7f", "\\u001b]0;x\\u0007\\u009b2J\\u007f"),
        ("\ud800", "\\ud800"),
        ("\ufeff\u00ad", "\\ufeff\\u00ad"),
    ],
)
def test_an_unsafe_character_is_shown_as_its_code(text: str, shown: str) -> None:
    assert escape_text(text) == shown
    assert one_line(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *(f"admin{chr(selector)}" for selector in range(0xFE00, 0xFE10)),
        "\ufe0f",
        "1\ufe0f",
        "字\ufe0f",
        "字\ufe05",
        "☃\ufe00",
        "─\ufe0f",
        "字\u200c文",
        "字\u200d文",
        "─\u200d─",
        "\ue000\u200d\ue000",
        "\U000f0000\u200c\U000f0000",
        "\u1200\u200d\u1200",
        "\u13a0\u200c\u13a0",
        "한\u200d글",
        "\u0661\u200c\u0662",
        "\u17b4\u200c\u17b4",
        "😀\u200c😀",
        "😀\u200da",
        "\u200d😀",
        "a\ufe0f\u200d😀",
    ],
    ids=ascii,
)
def test_a_joiner_and_a_selector_that_nothing_needs_are_shown_as_their_codes(text: str) -> None:
    for shown in (escape_text(text), one_line(text), escape_json(text)):
        assert not [
            each for each in shown if each in "\u200c\u200d" or "\ufe00" <= each <= "\ufe0f"
        ]


def test_a_second_selector_is_shown_as_its_code() -> None:
    assert escape_text("☃\ufe0f\ufe0f神\ufe00\ufe01") == "☃\ufe0f\\ufe0f神\ufe00\\ufe01"


def test_one_line_has_a_space_for_each_kind_of_line_end() -> None:
    for end in ("\n", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\t"):
        assert one_line(f"a{end}b") == "a b"


@pytest.mark.parametrize(
    "space", [" ", "\xa0", "\u2003", "\u2800", "\u3000", " \u202f", " \t", "\n "]
)
def test_one_line_has_at_most_eight_spaces_in_a_run(space: str) -> None:
    assert one_line(f"a{space * 60}b") == f"a{' ' * 8}b"
    assert one_line("a        b") == "a        b"


def test_a_text_of_every_character_is_one_line() -> None:
    assert len(one_line("".join(EVERYTHING)).splitlines()) == 1


def test_escaped_json_has_the_same_value() -> None:
    value = {character: f"x{character}" for character in EVERYTHING if ord(character) % 7 == 0}
    value |= {"\u202e": "\U000e0041\ud800\x7f\n", "emoji": "👨\u200d👩"}
    text = escape_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not {*"\x7f\u202e\u2028\ud800\U000e0041"} & {*text}
