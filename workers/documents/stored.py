"""Storage of notes and documents in the store of the service (`BUS_STORE`).

Each write is a transaction of its own, and can be repeated, because a request or job can run twice.
This module needs the extra `store` or `postgres`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bus.integrations.store import create_missing_tables, store_engine
from contracts.documentation.v1 import Document, Note
from workers.documents.repository import check_owner

__all__ = ["StoredNotes"]

SERVICE = "documentation"
tables = MetaData()
notes = Table(
    "notes",
    tables,
    Column("note_id", String(36), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("note", Text, nullable=False),
)
documents = Table(
    "documents",
    tables,
    Column("number", Integer, primary_key=True),
    Column("document_id", String(36), nullable=False, unique=True),
    Column("note_id", String(36), nullable=False, index=True),
    Column("owner", String(255), nullable=False),
    Column("job_id", String(255), index=True),
    # None until the file is written.
    Column("document", Text),
)


class StoredNotes:
    """Storage of notes and documents that outlives the process. It implements `NoteRepository`."""

    def __init__(self, engine: AsyncEngine, reader: AsyncEngine) -> None:
        self._engine, self._reader = engine, reader

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator["StoredNotes"]:
        """Create the tables that do not exist, and close the connections at the end."""
        engine, reader = store_engine(SERVICE), store_engine(SERVICE, is_reading=True)
        try:
            await create_missing_tables(engine, tables)
            yield cls(engine, reader)
        finally:
            await engine.dispose()
            await reader.dispose()

    async def add(self, note: Note, *, owner: str) -> Note:
        """Store a note if it does not exist; see `NoteRepository.add`."""
        row = insert(notes).values(
            note_id=str(note.note_id), owner=owner, note=note.model_dump_json()
        )
        try:
            async with self._engine.begin() as connection:
                await connection.execute(row)
        except IntegrityError:
            return await self.find_own(note.note_id, owner=owner) or note
        return note

    async def find_own(self, note_id: UUID, *, owner: str) -> Note | None:
        """Return the owner's note with this id, or None; see `NoteRepository.find_own`."""
        row = await self._note(note_id)
        if row is None:
            return None
        check_owner(row[0], owner, "note")
        return Note.model_validate_json(row[1])

    async def find(self, note_id: UUID) -> Note | None:
        """Return the note with this id, or None."""
        row = await self._note(note_id)
        return None if row is None else Note.model_validate_json(row[1])

    async def claim(self, note_id: UUID, document_id: UUID, *, owner: str) -> None:
        """Record the owner of a document; see `NoteRepository.claim`."""
        row = insert(documents).values(
            document_id=str(document_id), note_id=str(note_id), owner=owner
        )
        try:
            async with self._engine.begin() as connection:
                await connection.execute(row)
        except IntegrityError:
            async with self._reader.connect() as connection:
                check_owner(await _owner(connection, document_id), owner, "document")

    async def attach(self, document: Document, *, job_id: str) -> None:
        """Record a document, which must be claimed; see `NoteRepository.attach`."""
        async with self._engine.begin() as connection:
            await connection.execute(
                update(documents)
                .where(documents.c.document_id == str(document.document_id))
                .values(job_id=job_id, document=document.model_dump_json())
            )

    async def documents(self, note_id: UUID) -> tuple[Document, ...]:
        """Return the documents of a note, oldest first."""
        return await self._documents(documents.c.note_id == str(note_id))

    async def find_documents(
        self, *, owner: str, job_id: str | None = None, document_id: UUID | None = None
    ) -> tuple[Document, ...]:
        """Return the owner's documents of a job, or the one with this id, oldest first."""
        conditions = [documents.c.owner == owner]
        if job_id is not None:
            conditions.append(documents.c.job_id == job_id)
        if document_id is not None:
            conditions.append(documents.c.document_id == str(document_id))
        return await self._documents(*conditions)

    async def _documents(self, *conditions: ColumnElement[bool]) -> tuple[Document, ...]:
        statement = (
            select(documents.c.document)
            .where(documents.c.document.is_not(None), *conditions)
            .order_by(documents.c.number)
        )
        async with self._reader.connect() as connection:
            found = (await connection.execute(statement)).scalars().all()
        return tuple(Document.model_validate_json(each) for each in found)

    async def _note(self, note_id: UUID) -> tuple[str, str] | None:
        statement = select(notes.c.owner, notes.c.note).where(notes.c.note_id == str(note_id))
        async with self._reader.connect() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else (row.owner, row.note)


async def _owner(connection: AsyncConnection, document_id: UUID) -> str:
    statement = select(documents.c.owner).where(documents.c.document_id == str(document_id))
    return str((await connection.execute(statement)).scalar_one())
