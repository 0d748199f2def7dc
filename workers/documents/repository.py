"""Storage of notes: its interface, and an implementation in memory."""

from collections import OrderedDict
from typing import Protocol
from uuid import UUID

from contracts.documentation.v1 import Document, Note

__all__ = ["MemoryRepository", "NoteRepository"]


class NoteRepository(Protocol):
    """Storage of notes by their id, and of the documents that were generated from them."""

    async def add(self, note: Note) -> Note:
        """Store a note, and return it. Return only after it is stored durably.

        If a note with this id exists, that note stays and is returned, because a request may run
        twice.
        """
        ...

    async def find(self, note_id: UUID) -> Note | None:
        """Return the note with this id, or None."""
        ...

    async def attach(self, document: Document) -> None:
        """Record that a document was generated from its note.

        A recorded document with the same id is replaced, because a job may run twice.
        """
        ...

    async def documents(self, note_id: UUID) -> tuple[Document, ...]:
        """Return the documents of a note, oldest first."""
        ...


class MemoryRepository:
    """Storage of the latest `limit` notes in memory. They are lost when the process ends.

    The files of their documents stay.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._notes: OrderedDict[UUID, Note] = OrderedDict()
        self._documents: dict[UUID, dict[UUID, Document]] = {}

    async def add(self, note: Note) -> Note:
        """Store a note if it does not exist. Remove the oldest note if the limit is exceeded."""
        kept = self._notes.setdefault(note.note_id, note)
        if len(self._notes) > self._limit:
            forgotten, _ = self._notes.popitem(last=False)
            self._documents.pop(forgotten, None)
        return kept

    async def find(self, note_id: UUID) -> Note | None:
        """Return the note with this id, or None."""
        return self._notes.get(note_id)

    async def attach(self, document: Document) -> None:
        """Record a document. Do nothing if its note was removed."""
        if document.note_id in self._notes:
            self._documents.setdefault(document.note_id, {})[document.document_id] = document

    async def documents(self, note_id: UUID) -> tuple[Document, ...]:
        """Return the documents of a note, oldest first."""
        return tuple(self._documents.get(note_id, {}).values())
