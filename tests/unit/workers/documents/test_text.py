"""The conversion of dictated text to paragraphs of a page."""

import pytest

from workers.documents.text import paragraphs, plain


def test_a_line_break_stays_one_and_an_empty_line_begins_a_paragraph() -> None:
    assert paragraphs("one\ntwo\n\nthree") == [["one", "two"], ["three"]]


@pytest.mark.parametrize("text", ["a\r\nb", "a\rb", "a\vb", "a\x85b", "a\u2028b"])
def test_every_way_of_breaking_a_line_is_one(text: str) -> None:
    assert paragraphs(text) == [["a", "b"]]


@pytest.mark.parametrize(
    "text", ["a\n\nb", "a\r\n\r\nb", "a\fb", "a\u2029b", "a\n \t \nb", "\n\na\n\n\n\nb\n\n"]
)
def test_every_way_of_ending_a_paragraph_is_one(text: str) -> None:
    assert paragraphs(text) == [["a"], ["b"]]


@pytest.mark.parametrize("text", ["", "  ", "\n\n", "\t\r\n\f", "\ufeff"])
def test_a_text_that_shows_nothing_has_no_paragraphs(text: str) -> None:
    assert paragraphs(text) == []


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\0", "[U+0000]"),
        ("\x07", "[U+0007]"),
        ("\x7f", "[U+007F]"),
        ("\ufffe", "[U+FFFE]"),
        ("\u202e", "[U+202E]"),
    ],
)
def test_what_no_page_can_carry_is_seen_and_not_dropped(character: str, shown: str) -> None:
    assert plain(f"5{character} mg") == f"5{shown} mg"


def test_accents_that_were_sent_apart_come_together() -> None:
    assert plain("Cafe\u0301") == "Café"


def test_indentation_and_tabs_stay() -> None:
    assert paragraphs("Plan:\n  - rest\n\tthen walk") == [["Plan:", "  - rest", "    then walk"]]
