"""The repository of the latest transcripts by id."""

from uuid import UUID, uuid4

import pytest

from bus import AlreadyExists
from contracts.transcription.v1 import Transcript
from workers.transcription.repository import MemoryRepository


def transcript(transcript_id: UUID, text: str = "") -> Transcript:
    return Transcript(
        transcript_id=transcript_id,
        text=text,
        confidence=0,
        duration=1,
        language="en",
        engine="none",
        segments=(),
    )


async def test_a_second_run_replaces_the_first() -> None:
    repository, id_ = MemoryRepository(limit=2), uuid4()
    await repository.save(transcript(id_, "first"), owner="office")
    await repository.save(transcript(id_, "second"), owner="office")
    assert await repository.find(id_) == transcript(id_, "second")


async def test_beyond_the_limit_the_oldest_is_forgotten() -> None:
    repository, ids = MemoryRepository(limit=2), [uuid4() for _ in range(3)]
    for id_ in ids:
        await repository.save(transcript(id_), owner="office")
    assert [await repository.find(id_) is not None for id_ in ids] == [False, True, True]


async def test_a_transcript_of_another_owner_is_never_replaced() -> None:
    repository, id_ = MemoryRepository(limit=2), uuid4()
    await repository.save(transcript(id_, "first"), owner="office")
    with pytest.raises(AlreadyExists, match="another service owns the transcript"):
        await repository.save(transcript(id_, "second"), owner="mail")
    assert await repository.find(id_) == transcript(id_, "first")


async def test_a_removed_transcript_has_no_owner() -> None:
    repository, ids = MemoryRepository(limit=1), [uuid4(), uuid4()]
    for id_ in ids:
        await repository.save(transcript(id_), owner="office")
    await repository.save(transcript(ids[0]), owner="mail")
    assert await repository.find(ids[0]) is not None
