"""Documentation service, which turns a note into DOCX and PDF.

    repository    stores notes
    transcripts   gets a note's subjective section from the transcription service
    text          converts dictated text to text that a document can hold
    layout        determines the content of the pages, which is the same for both formats
    word, pdf     write the pages in one format
    rendering     runs `word` or `pdf` in a thread, outside the event loop
    folder        stores documents
    service       has the handlers

Only the module `settings` reads the environment.
"""

from workers.documents.service import router

__all__ = ["router"]
