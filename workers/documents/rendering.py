"""Rendering of a note to the bytes of a file."""

from dataclasses import dataclass
from datetime import tzinfo
from typing import Self

from bus import ConfigurationError, InvalidArgument
from contracts.documentation.v1 import DocumentFormat, Note
from workers.documents.layout import Letterhead, PageSize, laid_out
from workers.documents.pdf import check_shown, render_pdf
from workers.documents.settings import DocumentsSettings
from workers.documents.word import render_docx

__all__ = ["Rendered", "Template"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Rendered document that is not stored yet."""

    data: bytes
    pages: int | None
    """Number of pages. None for DOCX, because the program that opens the file breaks its pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Properties that all documents of a clinic have in common."""

    letterhead: Letterhead
    zone: tzinfo
    page_size: PageSize

    @classmethod
    def from_settings(cls, settings: DocumentsSettings) -> Self:
        """Return the clinic's template from the settings.

        Raise `ConfigurationError` if a PDF cannot show the letterhead.
        """
        letterhead = Letterhead(name=settings.clinic_name, address=settings.clinic_address)
        try:
            check_shown(letterhead.name + letterhead.address)
        except InvalidArgument as error:
            text = (
                "DOCUMENTS_CLINIC_NAME or DOCUMENTS_CLINIC_ADDRESS has letters that a PDF cannot "
                "show. Write both in Latin, Greek or Cyrillic."
            )
            raise ConfigurationError(text) from error
        return cls(letterhead=letterhead, zone=settings.zone, page_size=settings.page_size)

    def rendered(self, note: Note, format_: DocumentFormat) -> Rendered:
        """Render the note in this format. The same note always gives the same bytes.

        Raise `InvalidArgument` if the format cannot show the script of the note.
        """
        layout = laid_out(note, self.letterhead, zone=self.zone, page_size=self.page_size)
        if format_ == "pdf":
            data, pages = render_pdf(layout)
            return Rendered(data=data, pages=pages)
        return Rendered(data=render_docx(layout), pages=None)
