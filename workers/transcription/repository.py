"""Storage of transcripts: its interface, and an implementation in memory."""

from collections import OrderedDict
from typing import Protocol
from uuid import UUID

from contracts.transcription.v1 import Transcript

__all__ = ["MemoryRepository", "TranscriptRepository"]


class TranscriptRepository(Protocol):
    """Storage of transcripts by their id."""

    async def save(self, transcript: Transcript) -> None:
        """Store a transcript. Return only after it is stored durably.

        A stored transcript with the same id is replaced, because a job may run twice.
        """
        ...

    async def find(self, transcript_id: UUID) -> Transcript | None:
        """Return the transcript with this id, or None."""
        ...


class MemoryRepository:
    """Storage of the latest `limit` transcripts in memory. They are lost when the process ends."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[UUID, Transcript] = OrderedDict()

    async def save(self, transcript: Transcript) -> None:
        """Store or replace a transcript. Remove the oldest transcript if the limit is exceeded."""
        self._kept[transcript.transcript_id] = transcript
        self._kept.move_to_end(transcript.transcript_id)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    async def find(self, transcript_id: UUID) -> Transcript | None:
        """Return the transcript with this id, or None."""
        return self._kept.get(transcript_id)
