"""Tests that read the PDF back."""

from time import process_time
from typing import Any

import pytest
from pypdf import PdfReader

from contracts.documentation.v1 import LONGEST_SECTION, NoteContent
from tests.unit.workers.documents.notes import NOTE_ID, SIGNED, note
from tests.workers.documents.conftest import CLINIC, page_texts, pdf
from workers.documents.rendering import Template
from workers.documents.settings import load_settings

UNSIGNED = "Generated document — not signed"
HEADINGS = ["Subjective", "Objective", "Assessment", "Plan"]
LONG = "\n\n".join(["The patient reports pain that comes and goes. " * 12] * 14)
SCRIPTS = {
    "Greek": "Πόνος στο στήθος, ήπιος",
    "Cyrillic": "Боль в груди, ё й ъ",
    "Turkish": "Göğüs ağrısı; İğne, ışık, şeker",  # noqa: RUF001 - the dotless i is what is tested
    "German": "Größe, Übelkeit, Maß",
    "Vietnamese": "Đau ngực từ hai ngày",
    "clinical signs": "≤ 5 µg ± ½, 37 °C, SpO₂, ♀ → ↑",
}


def test_the_first_page_says_whose_note_it_is_and_what_it_says_in_clinical_order(
    template: Template,
) -> None:
    (text,) = page_texts(pdf(template, note()))
    for shown in (
        CLINIC,
        "12 Harbour Street",
        "SOAP note",
        "MRN-0048213",
        "ENC-11",
        "DR-7",
        str(NOTE_ID),
        "Chest pain for two days.",
    ):
        assert shown in text
    places = [text.index(f"\n{heading}\n") for heading in HEADINGS]
    assert places == sorted(places)


def test_the_date_is_of_the_clinics_zone_with_its_month_as_a_word(template: Template) -> None:
    assert "5 March 2026, 00:30 EET" in page_texts(pdf(template, note()))[0]


def test_each_page_has_its_number_the_patient_and_that_it_is_not_signed(template: Template) -> None:
    texts = page_texts(pdf(template, note(LONG)))
    assert len(texts) == template.rendered(note(LONG), "pdf").pages
    assert len(texts) > 2
    for number, text in enumerate(texts, start=1):
        assert f"Page {number} of {len(texts)}" in text
        assert "Patient ID: MRN-0048213" in text
        assert UNSIGNED in text


def test_a_note_that_is_signed_says_by_whom_and_nowhere_that_it_is_not(template: Template) -> None:
    texts = page_texts(pdf(template, note(LONG, signature=SIGNED)))
    assert all(
        "Signed by DR-7 on 5 March 2026, 10:00 EET" in text and "not signed" not in text
        for text in texts
    )


def embedded_fonts(file: PdfReader) -> list[str]:
    """Return the names of the first page's fonts, and assert that each is embedded."""
    resources: Any = file.pages[0]["/Resources"]
    fonts = [font.get_object() for font in resources["/Font"].values()]
    assert all("/FontFile2" in font["/FontDescriptor"] for font in fonts)
    return [font["/BaseFont"] for font in fonts]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_comes_out_as_it_went_in_and_its_font_is_embedded(
    template: Template, script: str
) -> None:
    file = pdf(template, note(SCRIPTS[script]))
    assert SCRIPTS[script] in page_texts(file)[0]
    assert {name.partition("+")[2] for name in embedded_fonts(file)} == {
        "LiberationSans",
        "LiberationSans-Bold",
    }


def test_a_section_without_text_says_so(template: Template) -> None:
    text = page_texts(pdf(template, note(content=NoteContent(plan="Rest."))))[0]
    assert text.count("Not documented.") == 3


def test_a_transcript_that_nobody_read_says_so(template: Template) -> None:
    assert (
        "Subjective\nMachine transcript of the recording, not reviewed."
        in page_texts(pdf(template, note(transcribed=True)))[0]
    )


def test_markup_and_control_characters_are_shown_and_not_obeyed(template: Template) -> None:
    text = page_texts(pdf(template, note("<b>BP</b> &lt; {total} <br/>\x00\x1b \U0001f642")))[0]
    assert "<b>BP</b> &lt; {total} <br/>[U+0000][U+001B] [U+1F642]" in text


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "<" * 10_000, "a\n" * 1500], ids=["one word", "markup", "many lines"]
)
def test_a_section_of_any_form_is_rendered_whole(template: Template, text: str) -> None:
    pages = page_texts(pdf(template, note(content=NoteContent(plan=text))))
    letter = text[0]
    lines = [line for page in pages for line in page.splitlines() if set(line) == {letter}]
    assert sum(map(len, lines)) == text.count(letter)


@pytest.mark.parametrize(
    "text",
    ["\U0001f642" * 25_000, "\u0301" * 25_000, "\u200f" * 25_000, "a\n\n" * 8_000, "W" * 50_000],
    ids=["emoji", "marks", "controls of direction", "paragraphs", "one word"],
)
def test_a_section_of_any_characters_takes_time_that_is_linear_in_its_length(
    template: Template, text: str
) -> None:
    begun = process_time()
    template.rendered(note(content=NoteContent(plan=text)), "pdf")
    # Four sections of 50,000 emoji took 124 s with quadratic time.
    assert process_time() - begun < 3


def test_the_largest_note_is_far_below_the_default_limits() -> None:
    # Each paragraph ends with one character. A tenth of the longest section is enough to measure.
    text = "\U00100000\u2029" * (LONGEST_SECTION // 2 // 10)
    content = NoteContent(subjective=text, objective=text, assessment=text, plan=text)
    settings = load_settings(page_size="letter")
    begun = process_time()
    rendered = Template.from_settings(settings).rendered(note(content=content), "pdf")
    assert (process_time() - begun) * 10 < settings.max_seconds / 2
    assert len(rendered.data) * 10 < settings.max_bytes / 2
    assert rendered.pages is not None
    assert 300 < rendered.pages <= 315  # the first and the last page also have other content


def test_a_word_that_is_wider_than_a_page_begins_behind_the_word_before_it(
    template: Template,
) -> None:
    text = page_texts(pdf(template, note(content=NoteContent(plan=f"see {'W' * 60} end"))))[0]
    lines = [line for line in text.splitlines() if "W" in line]
    assert lines[0].startswith("see W")
    assert lines[-1].endswith("W end")
    assert "".join(lines).count("W") == 60


def test_no_line_of_a_paragraph_stands_alone_on_a_page(template: Template) -> None:
    for count in range(34, 42):
        texts = page_texts(pdf(template, note(content=NoteContent(subjective="line\n" * count))))
        shown = [text.count("line\n") for text in texts]
        assert sum(shown) == count
        assert 1 not in shown


def test_the_same_note_gives_the_same_bytes(template: Template) -> None:
    assert template.rendered(note(LONG), "pdf") == template.rendered(note(LONG), "pdf")


def test_a_file_browser_sees_nothing_of_the_patient(template: Template) -> None:
    about = pdf(template, note()).metadata
    assert about is not None
    assert (about.title, about.author) == ("SOAP note", CLINIC)
    assert "MRN" not in str(about)


def test_long_ids_stay_whole(template: Template) -> None:
    ids = {
        name: letter * 64
        for name, letter in (("patient_id", "W"), ("encounter_id", "1"), ("provider_id", "m"))
    }
    text = page_texts(pdf(template, note(**ids)))[0]
    assert f"Patient ID: {'W' * 64}" in text
    for letter in "W1m":
        assert text.replace("\n", "").count(letter * 64) >= 1
