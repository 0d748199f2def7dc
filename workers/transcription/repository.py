"""Storage of transcripts: its interface, and an implementation in memory.

Each transcript has an owner: the service that submitted its job. Only the owner's jobs can replace
it. The grants decide which services may read it.
"""

from collections import OrderedDict
from typing import Protocol
from uuid import UUID

from bus import AlreadyExists
from contracts.transcription.v1 import Transcript

__all__ = ["MemoryRepository", "TranscriptRepository"]


class TranscriptRepository(Protocol):
    """Storage of transcripts by their id."""

    async def save(self, transcript: Transcript, *, owner: str) -> None:
        """Store a transcript and its owner. Return only after they are stored durably.

        The owner's transcript with the same id is replaced, because a job may run twice. Raise
        `AlreadyExists` if another service owns that transcript, and do not change it.
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
        self._owners: dict[UUID, str] = {}

    async def save(self, transcript: Transcript, *, owner: str) -> None:
        """Store or replace a transcript. Remove the oldest transcript if the limit is exceeded.

        Raise `AlreadyExists` if another service owns the transcript with this id.
        """
        if self._owners.setdefault(transcript.transcript_id, owner) != owner:
            raise AlreadyExists(
                "another service owns the transcript with this id. Submit the recording again."
            )
        self._kept[transcript.transcript_id] = transcript
        self._kept.move_to_end(transcript.transcript_id)
        if len(self._kept) > self._limit:
            removed, _ = self._kept.popitem(last=False)
            del self._owners[removed]

    async def find(self, transcript_id: UUID) -> Transcript | None:
        """Return the transcript with this id, or None."""
        return self._kept.get(transcript_id)
