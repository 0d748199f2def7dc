"""Documentation service, which turns a note into DOCX and PDF.

    repository    storage of notes (a Protocol; in memory)
    transcripts   a note's subjective section, from the transcription service
    text          dictated text to text that a document can hold
    layout        the content of the pages, for each format
    word, pdf     the pages
    rendering     the call of either format, outside the event loop
    folder        storage of documents
    service       the handlers

The settings are in `settings`, and no other module here reads the environment.
"""

from workers.documents.service import router

__all__ = ["router"]
