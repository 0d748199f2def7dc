"""Where transcripts are kept: a port, and an implementation in memory."""

from collections import OrderedDict
from typing import Protocol
from uuid import UUID

from contracts.transcription.v1 import Transcript

__all__ = ["MemoryRepository", "TranscriptRepository"]


class TranscriptRepository(Protocol):
    """Keeps transcripts by their id."""

    async def save(self, transcript: Transcript) -> None:
        """Keep it durably before returning; one of the same id is replaced, so that a job may run twice."""
        ...

    async def find(self, transcript_id: UUID) -> Transcript | None:
        """The transcript of this id, or None."""
        ...


class MemoryRepository:
    """Keeps the latest `limit` transcripts in this process; they are gone when it ends."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[UUID, Transcript] = OrderedDict()

    async def save(self, transcript: Transcript) -> None:
        """Keep or replace it; beyond the limit the oldest is forgotten."""
        self._kept[transcript.transcript_id] = transcript
        self._kept.move_to_end(transcript.transcript_id)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    async def find(self, transcript_id: UUID) -> Transcript | None:
        """The transcript of this id, or None."""
        return self._kept.get(transcript_id)
