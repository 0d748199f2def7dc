"""Fixtures of the documentation worker's tests.

Rendering takes longer than a unit test may.
"""

from io import BytesIO

import pytest
from docx import Document
from docx.document import Document as WordDocument
from docx.oxml.ns import qn
from pypdf import PdfReader

from contracts.documentation.v1 import Note
from tests.properties import as_here
from workers.documents.rendering import Template
from workers.documents.settings import load_settings

as_here()
CLINIC = "Northside Family Practice"


@pytest.fixture
def template() -> Template:
    return Template.from_settings(
        load_settings(
            clinic_name=CLINIC, clinic_address="12 Harbour Street", timezone="Europe/Athens"
        )
    )


def pdf(template: Template, note: Note) -> PdfReader:
    return PdfReader(BytesIO(template.rendered(note, "pdf").data))


def word(template: Template, note: Note) -> WordDocument:
    return Document(BytesIO(template.rendered(note, "docx").data))


def page_texts(file: PdfReader) -> list[str]:
    return [page.extract_text() for page in file.pages]


def word_text(document: WordDocument) -> str:
    """Return all text of the body, tables included, one line for each paragraph."""
    lines = document.element.body.iter(qn("w:p"))
    return "\n".join("".join(part.text or "" for part in line.iter(qn("w:t"))) for line in lines)
