"""The transcription service with a store: transcripts are rows that outlive the process.

A job's transcript and the end of the job are committed together, so a transcript exists exactly
once, even if its worker is killed. This module needs the extra `store` or `postgres`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import (
    Column,
    DateTime,
    MetaData,
    Select,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from bus import AlreadyExists, Context, Router
from bus.integrations.store import create_missing_tables, store_engine
from contracts.transcription.v1 import GetTranscript, TranscribeAudio, Transcript
from workers.transcription.service import (
    CONCURRENCY,
    JOB_TIMEOUT,
    RETRY,
    Transcription,
    completed,
    get,
    opened,
    transcript_of,
)
from workers.transcription.settings import load_settings

__all__ = ["StoredTranscripts", "router", "save", "transcribe"]

SERVICE = "transcription"
LOOKS = (0.1, 0.4)
"""Seconds before the second and the third look for a transcript.

The event about a transcript is sent before the transcript is committed, which takes milliseconds.
"""
tables = MetaData()
transcripts = Table(
    "transcripts",
    tables,
    Column("transcript_id", String(36), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("transcript", Text, nullable=False),
)


class StoredTranscripts:
    """Storage of transcripts in the store of the service."""

    def __init__(self, engine: AsyncEngine, reader: AsyncEngine) -> None:
        self._engine, self._reader = engine, reader

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator["StoredTranscripts"]:
        """Create the table if it does not exist, and close the connections at the end."""
        engine, reader = store_engine(SERVICE), store_engine(SERVICE, is_reading=True)
        try:
            await create_missing_tables(engine, tables)
            yield cls(engine, reader)
        finally:
            await engine.dispose()
            await reader.dispose()

    async def save(self, transcript: Transcript, *, owner: str) -> None:
        """Store or replace a transcript in a transaction of its own; see `save`."""
        async with self._engine.begin() as connection:
            await save(connection, transcript, owner=owner)

    async def find(self, transcript_id: UUID) -> Transcript | None:
        """Return the transcript with this id, or None."""
        found = await self._look(transcript_id)
        for seconds in LOOKS:
            if found is not None:
                return found
            await asyncio.sleep(seconds)
            found = await self._look(transcript_id)
        return found

    async def _look(self, transcript_id: UUID) -> Transcript | None:
        async with self._reader.connect() as connection:
            row = (await connection.execute(_row(transcript_id))).one_or_none()
        return None if row is None else Transcript.model_validate_json(row.transcript)


async def save(
    connection: AsyncConnection | AsyncSession, transcript: Transcript, *, owner: str
) -> None:
    """Store a transcript and its owner in the present transaction.

    The owner's transcript with the same id is replaced, because a job may run twice.

    Raises:
        AlreadyExists: Another service owns the transcript with this id.
    """
    id_ = transcript.transcript_id
    row = (await connection.execute(_row(id_))).one_or_none()
    if row is not None and row.owner != owner:
        raise AlreadyExists(
            "another service owns the transcript with this id. Submit the recording again."
        )
    text = transcript.model_dump_json()
    if row is not None:
        await connection.execute(
            update(transcripts)
            .where(transcripts.c.transcript_id == str(id_))
            .values(transcript=text)
        )
        return
    await connection.execute(
        insert(transcripts).values(
            transcript_id=str(id_), owner=owner, created_at=datetime.now(UTC), transcript=text
        )
    )


def _row(transcript_id: UUID) -> "Select[tuple[str, str]]":
    return select(transcripts.c.owner, transcripts.c.transcript).where(
        transcripts.c.transcript_id == str(transcript_id)
    )


@asynccontextmanager
async def lifespan() -> AsyncIterator[Transcription]:
    """Start everything that the handlers share. Transcripts are kept in the store."""
    async with (
        StoredTranscripts.opened() as repository,
        opened(load_settings(), repository) as state,
    ):
        yield state


router = Router(SERVICE, lifespan=lifespan)
router.request(GetTranscript, concurrency=16)(get)


@router.job(
    TranscribeAudio,
    retry=RETRY,
    timeout=JOB_TIMEOUT,
    concurrency=CONCURRENCY,
    transactional=True,
)
async def transcribe(job: TranscribeAudio, context: Context, session: AsyncSession) -> Transcript:
    """Fetch the recording, recognise it, publish the event, and store the transcript.

    The transcript is committed together with the end of the job. The session is used last and
    briefly, because SQLite has one writer.
    """
    transcript = await transcript_of(job, context)
    await context.bus.publish(completed(transcript))
    await save(session, transcript, owner=context.envelope.source)
    return transcript
