"""Storage of notes: its interface, and an implementation in memory.

Each note and each document has an owner: the service that sent its request or job. Only the owner's
messages can replace it. The grants decide which services may read it.
"""

from collections import OrderedDict
from typing import Protocol
from uuid import UUID

from bus import AlreadyExists
from contracts.documentation.v1 import Document, Note

__all__ = ["MemoryRepository", "NoteRepository", "check_owner"]


class NoteRepository(Protocol):
    """Storage of notes by their id, and of the documents that were generated from them."""

    async def add(self, note: Note, *, owner: str) -> Note:
        """Store a note and its owner, and return the note. Return only after it is stored durably.

        If the owner has a note with this id, that note stays and is returned, because a request may
        run twice. Raise `AlreadyExists` if another service owns the note with this id.
        """
        ...

    async def find_own(self, note_id: UUID, *, owner: str) -> Note | None:
        """Return the owner's note with this id, or None.

        Raise `AlreadyExists` if another service owns the note with this id.
        """
        ...

    async def find(self, note_id: UUID) -> Note | None:
        """Return the note with this id, or None."""
        ...

    async def claim(self, note_id: UUID, document_id: UUID, *, owner: str) -> None:
        """Record the owner of a document of a note, before the document's file is written.

        The owner of the note and the owner of the document can be different services. Raise
        `AlreadyExists` if another service owns the document with this id.
        """
        ...

    async def attach(self, document: Document, *, job_id: str) -> None:
        """Record that a job generated a document from its note. The document must be claimed.

        A recorded document with the same id is replaced, because a job may run twice.
        """
        ...

    async def documents(self, note_id: UUID) -> tuple[Document, ...]:
        """Return the documents of a note, oldest first."""
        ...

    async def find_documents(
        self, *, owner: str, job_id: str | None = None, document_id: UUID | None = None
    ) -> tuple[Document, ...]:
        """Return the owner's documents of a job, or the one with this id, oldest first."""
        ...


class MemoryRepository:
    """Storage of the latest `limit` notes in memory. They are lost when the process ends.

    The files of their documents stay.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._notes: OrderedDict[UUID, Note] = OrderedDict()
        self._documents: dict[UUID, dict[UUID, Document]] = {}
        self._owners: dict[UUID, str] = {}
        """The owner of each note, by the id of the note."""
        self._document_owners: dict[UUID, str] = {}
        """The owner of each document, by the id of the document."""
        self._claimed: dict[UUID, set[UUID]] = {}
        """The ids of the documents that were claimed for each note."""
        self._jobs: dict[UUID, str] = {}
        """The id of the job of each document, by the id of the document."""

    async def add(self, note: Note, *, owner: str) -> Note:
        """Store a note if it does not exist. Remove the oldest note if the limit is exceeded.

        Raise `AlreadyExists` if another service owns the note with this id.
        """
        if (kept := await self.find_own(note.note_id, owner=owner)) is not None:
            return kept
        self._notes[note.note_id], self._owners[note.note_id] = note, owner
        if len(self._notes) > self._limit:
            forgotten, _ = self._notes.popitem(last=False)
            del self._owners[forgotten]
            self._documents.pop(forgotten, None)
            for document_id in self._claimed.pop(forgotten, ()):
                self._document_owners.pop(document_id, None)
                self._jobs.pop(document_id, None)
        return note

    async def find_own(self, note_id: UUID, *, owner: str) -> Note | None:
        """Return the owner's note with this id, or None.

        Raise `AlreadyExists` if another service owns the note with this id.
        """
        check_owner(self._owners.get(note_id, owner), owner, "note")
        return self._notes.get(note_id)

    async def find(self, note_id: UUID) -> Note | None:
        """Return the note with this id, or None."""
        return self._notes.get(note_id)

    async def claim(self, note_id: UUID, document_id: UUID, *, owner: str) -> None:
        """Record the owner of a document. Do nothing if its note was removed.

        Raise `AlreadyExists` if another service owns the document with this id.
        """
        check_owner(self._document_owners.get(document_id, owner), owner, "document")
        if note_id in self._notes:
            self._document_owners[document_id] = owner
            self._claimed.setdefault(note_id, set()).add(document_id)

    async def attach(self, document: Document, *, job_id: str) -> None:
        """Record a document. Do nothing if its note was removed."""
        if document.note_id in self._notes:
            self._documents.setdefault(document.note_id, {})[document.document_id] = document
            self._jobs[document.document_id] = job_id

    async def documents(self, note_id: UUID) -> tuple[Document, ...]:
        """Return the documents of a note, oldest first."""
        return tuple(self._documents.get(note_id, {}).values())

    async def find_documents(
        self, *, owner: str, job_id: str | None = None, document_id: UUID | None = None
    ) -> tuple[Document, ...]:
        """Return the owner's documents of a job, or the one with this id, oldest first."""
        return tuple(
            each
            for documents in self._documents.values()
            for each in documents.values()
            if self._document_owners.get(each.document_id) == owner
            and document_id in {None, each.document_id}
            and job_id in {None, self._jobs[each.document_id]}
        )


def check_owner(owner: str, sender: str, noun: str) -> None:
    """Raise `AlreadyExists` if the sender of a message does not own the note or document."""
    if owner != sender:
        raise AlreadyExists(
            f"another service owns the {noun} with this id. Send the message again."
        )
