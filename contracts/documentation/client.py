"""Typed client of the documentation service."""

from uuid import UUID

from bus import JobHandle, Sender
from contracts.documentation.v1 import (
    CreateNote,
    Document,
    DocumentFormat,
    GeneratedDocuments,
    GenerateDocuments,
    GetDocuments,
    GetNote,
    GetNoteStatus,
    Note,
    NoteStatus,
)

__all__ = ["DocumentationClient"]


class DocumentationClient:
    """Typed calls over a `Bus`, or over a handler's `context.bus`.

    The methods raise the same errors as `Bus.request` and `Bus.submit`.
    """

    def __init__(self, bus: Sender) -> None:
        self._bus = bus

    async def create(self, note: CreateNote, *, timeout: float | None = None) -> NoteStatus:
        """Create a note, and return its status, which contains the `note_id`.

        `timeout` is in seconds, in this method and in the others.
        """
        return await self._bus.request(note, timeout=timeout)

    async def status(self, note_id: UUID, *, timeout: float | None = None) -> NoteStatus:
        """Return the status of a note: draft or signed, and the note's documents.

        Raise `NotFound` if the note does not exist.
        """
        return await self._bus.request(GetNoteStatus(note_id=note_id), timeout=timeout)

    async def get(self, note_id: UUID, *, timeout: float | None = None) -> Note:
        """Return a note with its content. Raise `NotFound` if the note does not exist."""
        return await self._bus.request(GetNote(note_id=note_id), timeout=timeout)

    async def generate(
        self, note_id: UUID, *formats: DocumentFormat
    ) -> JobHandle[GeneratedDocuments]:
        """Submit a job that generates documents of a note.

        The method returns when the broker has confirmed the job. The job's `result()` contains the
        URIs of the documents.
        """
        return await self._bus.submit(GenerateDocuments(note_id=note_id, formats=formats))

    async def documents(self, job_id: str, *, timeout: float | None = None) -> tuple[Document, ...]:
        """Return the documents of a job that this service submitted, oldest first.

        Raise `NotFound` if the job has no documents yet, or if another service submitted it.
        """
        found = await self._bus.request(GetDocuments(job_id=job_id), timeout=timeout)
        return found.documents

    async def document(self, document_id: UUID, *, timeout: float | None = None) -> Document:
        """Return a document of a job that this service submitted, or raise `NotFound`."""
        found = await self._bus.request(GetDocuments(document_id=document_id), timeout=timeout)
        return found.documents[0]
