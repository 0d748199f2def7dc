"""Where notes are kept: a port, and an implementation in memory."""

from collections import OrderedDict
from typing import Protocol
from uuid import UUID

from contracts.documentation.v1 import Document, Note

__all__ = ["MemoryRepository", "NoteRepository"]


class NoteRepository(Protocol):
    """Keeps notes by their id, and which documents were made of them."""

    async def add(self, note: Note) -> Note:
        """Keep it durably before returning. Where there is one of this id, that one stays and is returned: a request may run twice."""
        ...

    async def find(self, note_id: UUID) -> Note | None:
        """The note of this id, or None."""
        ...

    async def attach(self, document: Document) -> None:
        """Remember that a document was made of its note; one of the same id is replaced, so that a job may run twice."""
        ...

    async def documents(self, note_id: UUID) -> tuple[Document, ...]:
        """The documents of a note, oldest first."""
        ...


class MemoryRepository:
    """Keeps the latest `limit` notes in this process; they are gone when it ends, and the documents' files stay."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._notes: OrderedDict[UUID, Note] = OrderedDict()
        self._documents: dict[UUID, dict[UUID, Document]] = {}

    async def add(self, note: Note) -> Note:
        """Keep it, unless it is there; beyond the limit the oldest is forgotten."""
        kept = self._notes.setdefault(note.note_id, note)
        if len(self._notes) > self._limit:
            forgotten, _ = self._notes.popitem(last=False)
            self._documents.pop(forgotten, None)
        return kept

    async def find(self, note_id: UUID) -> Note | None:
        """The note of this id, or None."""
        return self._notes.get(note_id)

    async def attach(self, document: Document) -> None:
        """Remember a document; one of a note that is forgotten is forgotten, too."""
        if document.note_id in self._notes:
            self._documents.setdefault(document.note_id, {})[document.document_id] = document

    async def documents(self, note_id: UUID) -> tuple[Document, ...]:
        """The documents of a note, oldest first."""
        return tuple(self._documents.get(note_id, {}).values())
