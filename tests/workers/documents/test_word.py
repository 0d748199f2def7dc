"""Tests that read the DOCX back."""

import re
from io import BytesIO
from time import process_time

from docx import Document
from docx.oxml.ns import qn

from contracts.documentation.v1 import NoteContent
from tests.unit.workers.documents.notes import NOTE_ID, SIGNED, note
from tests.workers.documents.conftest import CLINIC, word, word_text
from workers.documents.rendering import Template

UNSIGNED = "Generated document — not signed"


def test_it_says_whose_note_it_is_and_what_it_says_in_clinical_order(template: Template) -> None:
    document = word(template, note())
    text = word_text(document)
    for shown in (
        CLINIC,
        "12 Harbour Street",
        "MRN-0048213",
        "ENC-11",
        "DR-7",
        str(NOTE_ID),
        "5 March 2026, 00:30 EET",
        UNSIGNED,
    ):
        assert shown in text
    styled = [
        (line.text, line.style.name)
        for line in document.paragraphs
        if line.style and line.style.name in {"Title", "Heading 1"}
    ]
    headings = [
        (heading, "Heading 1") for heading in ("Subjective", "Objective", "Assessment", "Plan")
    ]
    assert styled == [("SOAP note", "Title"), *headings]


def test_each_page_has_its_number_the_patient_and_that_it_is_not_signed(template: Template) -> None:
    page = word(template, note()).sections[0]
    assert page.different_first_page_header_footer
    for header in (page.first_page_header, page.header):
        assert header.paragraphs[0].text.endswith("\tPatient\u00a0ID:\u00a0MRN-0048213")
    for footer in (page.first_page_footer, page.footer):
        line = footer.paragraphs[0]
        assert line.text.startswith(UNSIGNED)
        # Word computes the numbers, so this test only checks the fields.
        assert [field.get(qn("w:instr")) for field in line._p.iter(qn("w:fldSimple"))] == [
            "PAGE",
            "NUMPAGES",
        ]
        assert "".join(piece.text or "" for piece in line._p.iter(qn("w:t"))).endswith(
            "Page 1 of 1"
        )


def test_a_note_that_is_signed_says_by_whom_and_nowhere_that_it_is_not(template: Template) -> None:
    document = word(template, note(signature=SIGNED))
    everywhere = word_text(document) + document.sections[0].footer.paragraphs[0].text
    assert everywhere.count("Signed by DR-7 on 5 March 2026, 10:00 EET") == 2
    assert "not signed" not in everywhere


def test_paragraphs_line_breaks_and_every_script_stay(template: Template) -> None:
    text = "Πόνος, боль, göğüs, Größe 疼痛 ألم\nsecond line\n\nsecond paragraph"
    lines = [line.text for line in word(template, note(text)).paragraphs]
    assert lines[lines.index("Subjective") + 1 :][:2] == text.split("\n\n")


def test_a_paragraph_that_begins_from_the_right_is_set_from_the_right(template: Template) -> None:
    document = word(template, note("1. ألم في الصدر\n\nChest pain (ألم)"))
    turned = [
        line.text
        for line in document.paragraphs
        if line._p.pPr is not None and line._p.pPr.find(qn("w:bidi")) is not None
    ]
    assert turned == ["1. ألم في الصدر"]


def test_a_section_without_text_says_so(template: Template) -> None:
    assert (
        word_text(word(template, note(content=NoteContent(plan="Rest.")))).count("Not documented.")
        == 3
    )


def test_markup_and_control_characters_are_shown_and_not_obeyed(template: Template) -> None:
    assert "<w:br/> &lt;[U+0000][U+001B]\U0001f642" in word_text(
        word(template, note("<w:br/> &lt;\x00\x1b\U0001f642"))
    )


def test_the_same_note_gives_the_same_bytes(template: Template) -> None:
    assert template.rendered(note(), "docx") == template.rendered(note(), "docx")


def test_a_file_browser_sees_nothing_of_the_patient(template: Template) -> None:
    about = word(template, note()).core_properties
    assert (about.title, about.author, about.last_modified_by, about.comments) == (
        "SOAP note",
        CLINIC,
        CLINIC,
        "",
    )


def test_a_paragraphs_properties_stand_in_the_order_that_word_wants(template: Template) -> None:
    """Check ECMA-376 part 1, 17.3.1.26: Word reports a file with another order as damaged."""
    order = (
        "pStyle",
        "keepNext",
        "keepLines",
        "widowControl",
        "pBdr",
        "tabs",
        "bidi",
        "spacing",
        "ind",
        "contextualSpacing",
        "jc",
        "outlineLvl",
    )
    document = word(template, note("ألم", transcribed=True))
    page, styles = document.sections[0], document.styles.element
    parts = (
        document.element.body,
        styles,
        page.header._element,
        page.first_page_header._element,
        page.footer._element,
    )
    for properties in (found for part in parts for found in part.iter(qn("w:pPr"))):
        names = [
            re.sub(r"\{.*\}", "", child.tag)
            for child in properties
            if not child.tag.endswith(("numPr", "rPr"))
        ]
        assert names == sorted(names, key=order.index)


def test_many_paragraphs_take_time_that_is_linear_in_their_number(template: Template) -> None:
    begun = process_time()
    file = template.rendered(note(content=NoteContent(plan="a\n\n" * 8_000)), "docx")
    # Four sections with 66,000 paragraphs took 128 s with quadratic time.
    assert process_time() - begun < 1.5
    assert word_text(Document(BytesIO(file.data))).count("a\n") >= 7_999
