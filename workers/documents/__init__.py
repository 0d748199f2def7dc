"""Documentation service, which turns a note into DOCX and PDF.

    repository    stores notes, in memory
    stored        stores notes and documents in a durable store (`BUS_STORE`)
    transcripts   gets a note's subjective section from the transcription service
    invisible     replaces characters that a reader cannot see
    text          converts dictated text to text that a document can hold
    layout        determines the content of the pages, which is the same for both formats
    lines         wraps the text of a PDF
    word, pdf     write the pages in one format
    rendering     runs `word` or `pdf`
    renderer      runs `rendering` in a process, within limits
    process       controls this process from the service
    folder        stores documents
    service       has the handlers

The package `workers.processes` starts and ends the processes.

Only the module `settings` reads the environment.
"""

from workers.documents.service import router

__all__ = ["router"]
