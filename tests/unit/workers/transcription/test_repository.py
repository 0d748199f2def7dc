"""The repository of the latest transcripts by id."""

from uuid import UUID, uuid4

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
    await repository.save(transcript(id_, "first"))
    await repository.save(transcript(id_, "second"))
    assert await repository.find(id_) == transcript(id_, "second")


async def test_beyond_the_limit_the_oldest_is_forgotten() -> None:
    repository, ids = MemoryRepository(limit=2), [uuid4() for _ in range(3)]
    for id_ in ids:
        await repository.save(transcript(id_))
    assert [await repository.find(id_) is not None for id_ in ids] == [False, True, True]
