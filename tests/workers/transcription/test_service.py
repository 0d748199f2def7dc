"""Tests of the handlers without a bus: from a recording to its transcript."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from bus.contracts.contract import Event, Job, Message, Request
from bus.errors import InvalidArgument, NotFound
from bus.messaging.context import Context, JobHandle
from bus.messaging.envelope import Envelope, Progress
from contracts.transcription.v1 import GetTranscript, TranscribeAudio, TranscriptCompleted
from tests.speech import needs_speech
from tests.unit.workers.transcription.recordings import DICTATION, RATE
from workers.transcription import router
from workers.transcription.service import Transcription, get, transcribe

R = TypeVar("R", bound=Message | None)


class Published:
    """Bus that records the published events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: object = None,
    ) -> R:
        raise NotImplementedError

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        self.events.append(event)

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> JobHandle[R]:
        raise NotImplementedError

    def job(self, job: Any, job_id: str, *, submitter: str | None = None) -> Any:
        raise NotImplementedError


# All tests share one loop and one lifespan, because each start loads two models.
pytestmark = [needs_speech, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def state() -> AsyncIterator[Transcription]:
    async with router.lifespan() as yielded:
        assert isinstance(yielded, Transcription)
        yield yielded


def context(
    state: Transcription,
    bus: Published,
    job_id: str = "job",
    told: list[Progress] | None = None,
    source: str = "test",
) -> Context:
    async def report(progress: Progress) -> None:
        if told is not None:
            told.append(progress)

    envelope = Envelope(id=job_id, type="transcription.transcribe.v1", role="job", source=source)
    return Context(envelope=envelope, bus=bus, state=state, report=report)


def job(path: Path) -> TranscribeAudio:
    return TranscribeAudio(audio_url=str(path))


async def test_the_dictation_becomes_a_transcript_that_can_be_asked_for(
    state: Transcription,
) -> None:
    bus, told = Published(), list[Progress]()
    transcript = await transcribe(job(DICTATION), context(state, bus, told=told))
    assert len(transcript.text.splitlines()) == len(transcript.segments) == 4
    assert 0.5 < transcript.confidence <= 1
    assert (transcript.language, transcript.engine) == ("en", "pocketsphinx")
    assert transcript.duration == pytest.approx(17.67)
    assert (
        await get(GetTranscript(transcript_id=transcript.transcript_id), context(state, bus))
        == transcript
    )
    fractions = [update.progress for update in told]
    assert fractions == sorted(fractions)
    assert len(fractions) == 4
    assert not any(word in update.note for update in told for word in ("patient", "pain"))
    words = len(transcript.text.split())
    assert bus.events == [
        TranscriptCompleted(
            transcript_id=transcript.transcript_id, duration=transcript.duration, words=words
        )
    ]


async def test_a_job_that_runs_twice_makes_one_transcript(
    state: Transcription, sentence: Path
) -> None:
    first = await transcribe(job(sentence), context(state, Published()))
    assert await transcribe(job(sentence), context(state, Published())) == first
    other = await transcribe(job(sentence), context(state, Published(), job_id="other"))
    assert other.transcript_id != first.transcript_id
    elsewhere = await transcribe(job(sentence), context(state, Published(), source="other"))
    assert elsewhere.transcript_id not in {first.transcript_id, other.transcript_id}


async def test_bad_recordings_and_silence_leave_the_service_working(
    state: Transcription, broken: Path, tmp_path: Path
) -> None:
    for _ in range(3):
        with pytest.raises(InvalidArgument):
            await transcribe(job(broken), context(state, Published()))
    with pytest.raises(NotFound):
        await transcribe(job(tmp_path / "missing.wav"), context(state, Published()))
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    silent = await transcribe(job(tmp_path / "silence.wav"), context(state, Published()))
    assert (silent.text, silent.segments, silent.confidence, silent.duration) == ("", (), 0.0, 1.0)


async def test_a_transcript_that_is_not_there_is_not_found() -> None:
    class Nothing:
        async def find(self, _: object) -> None:
            return None

    nothing: Any = Transcription(sources=Any, recognisers=Any, repository=Nothing())  # type: ignore[arg-type]  # only the repository is used
    with pytest.raises(NotFound, match="the transcript_id is unknown"):
        await get(GetTranscript(transcript_id=uuid4()), context(nothing, Published()))
