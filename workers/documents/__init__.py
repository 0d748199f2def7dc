"""The documentation service: a note goes in, DOCX and PDF come out.

    repository    where notes are kept (a Protocol; in memory)
    transcripts   a note's subjective section, from the transcription service
    text          what a clinician may dictate becomes what a document can carry
    layout        what stands on the pages, whatever the format
    word, pdf     the pages
    rendering     one of them, off the event loop
    folder        where documents lie
    service       the handlers

The settings are in `settings`, and nothing else here reads the environment.
"""

from workers.documents.service import router

__all__ = ["router"]
