"""The documentation service, for who calls it."""

from uuid import UUID

from bus import JobHandle, Sender
from contracts.documentation.v1 import (
    CreateNote,
    DocumentFormat,
    GeneratedDocuments,
    GenerateDocuments,
    GetNote,
    GetNoteStatus,
    Note,
    NoteStatus,
)

__all__ = ["DocumentationClient"]


class DocumentationClient:
    """Typed calls over a `Bus`, or over a handler's `context.bus`. What they raise is what `Client.request` and `Client.submit` do."""

    def __init__(self, bus: Sender) -> None:
        self._bus = bus

    async def create(self, note: CreateNote, *, timeout: float | None = None) -> NoteStatus:
        """Keep a note; its `note_id` is in the answer. `timeout` in seconds, here and below."""
        return await self._bus.request(note, timeout=timeout)

    async def status(self, note_id: UUID, *, timeout: float | None = None) -> NoteStatus:
        """Whether it is signed, and which documents were made of it; `NotFound` where there is no such note."""
        return await self._bus.request(GetNoteStatus(note_id=note_id), timeout=timeout)

    async def get(self, note_id: UUID, *, timeout: float | None = None) -> Note:
        """The note with its content; `NotFound` where there is none."""
        return await self._bus.request(GetNote(note_id=note_id), timeout=timeout)

    async def generate(self, note_id: UUID, *formats: DocumentFormat) -> JobHandle[GeneratedDocuments]:
        """Have documents made of a note; returns when the broker has confirmed. The job's `result()` says where they lie."""
        return await self._bus.submit(GenerateDocuments(note_id=note_id, formats=formats))
