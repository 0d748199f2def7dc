"""Rendering of a note to the bytes of a file, in a thread outside the event loop."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import tzinfo
from typing import Self

from bus import ConfigurationError, InvalidArgument
from contracts.documentation.v1 import DocumentFormat, Note
from workers.documents.layout import Letterhead, PageSize, laid_out
from workers.documents.pdf import check_shown, render_pdf
from workers.documents.settings import DocumentsSettings
from workers.documents.word import render_docx

__all__ = ["Rendered", "Renderer", "Template"]


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


class Renderer:
    """Renderer of notes, which runs in one thread.

    Several threads would not be faster because of the GIL, and ReportLab keeps its fonts in global
    variables.
    """

    def __init__(self, template: Template, thread: ThreadPoolExecutor) -> None:
        self._template = template
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def opened(cls, template: Template) -> AsyncIterator[Self]:
        """Start the thread, and end it when the block ends."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="renderer")
        try:
            yield cls(template, thread)
        finally:
            # Wait only for the running document, which takes seconds because sizes are limited.
            await asyncio.to_thread(thread.shutdown, cancel_futures=True)

    async def render(self, note: Note, format_: DocumentFormat) -> Rendered:
        """Render the note in the thread. Raise the errors of `Template.rendered`."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._template.rendered, note, format_
        )
