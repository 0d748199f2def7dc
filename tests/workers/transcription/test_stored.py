"""Tests of transcripts in a durable store, without the recogniser's model."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from bus import AlreadyExists, Bus, Cancelled, Context, NotFound, Router
from bus.integrations.store import store_engine
from bus.testing import MemoryBuses, wall_clock
from contracts.transcription.client import TranscriptionClient
from contracts.transcription.v1 import GetTranscript, TranscribeAudio, Transcript
from tests.polling import until
from tests.workers.storage import new_store
from tests.workers.test_owners import Recordings
from workers import transcription
from workers.transcription import service, stored
from workers.transcription.engine import Words
from workers.transcription.recogniser import Begun, Heard
from workers.transcription.service import Transcription
from workers.transcription.stored import StoredTranscripts

UTTERANCES = 3
SAID = "Come back in two weeks."


class Recognisers:
    """Recognisers that hear the text of a recording in each of three utterances."""

    def __init__(self) -> None:
        self.heard = 0
        self.context: Context | None = None
        """Context of the job, if the second utterance begins after the job's cancellation."""

    @asynccontextmanager
    async def lease(self) -> AsyncIterator["Recognisers"]:
        yield self

    async def recognise(self, said: str) -> AsyncIterator[Begun | Heard]:
        yield Begun(duration=UTTERANCES, engine="none", utterances=UTTERANCES)
        for each in range(UTTERANCES):
            self.heard += 1
            words = Words(text=said, confidence=1, start=each, end=each + 1)
            yield Heard(words=words, position=each + 1)
            if self.context is not None:
                await self.context.wait_cancelled()


@dataclass
class Clinic:
    """The worker and two clients, on one broker in memory."""

    worker: Bus
    reception: Bus
    stranger: Bus


Clinics = Callable[..., AbstractAsyncContextManager[Clinic]]


@pytest.fixture
async def clinics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinics:
    """Return a function that starts the worker on the one store of this test."""
    url = await new_store(tmp_path / "transcription.db", "transcription")
    monkeypatch.setenv("BUS_STORE", url)

    @asynccontextmanager
    async def started(router: Router | None = None) -> AsyncIterator[Clinic]:
        async with MemoryBuses(clock=wall_clock) as buses:
            clinic = Clinic(
                await buses.bus("transcription", store=url),
                await buses.bus("reception"),
                await buses.bus("stranger"),
            )
            await buses.serve(clinic.worker, router or _router(Recognisers()))
            yield clinic

    return started


def _router(recognisers: Recognisers, handler: Callable[..., Any] = stored.transcribe) -> Router:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Transcription]:
        async with StoredTranscripts.opened() as repository:
            yield Transcription(
                sources=Recordings(),  # type: ignore[arg-type]  # only `open` is used
                recognisers=recognisers,  # type: ignore[arg-type]  # only `lease` is used
                repository=repository,
            )

    router = Router("transcription", lifespan=lifespan)
    router.job(TranscribeAudio, transactional=True)(handler)
    router.request(GetTranscript)(service.get)
    return router


async def transcribed(clinic: Clinic) -> tuple[str, Transcript]:
    job = await TranscriptionClient(clinic.reception).create(SAID)
    return job.id, await job.result(timeout=20)


async def test_a_transcript_and_its_job_are_found_again_after_a_restart_of_the_worker(
    clinics: Clinics,
) -> None:
    async with clinics() as clinic:
        job_id, transcript = await transcribed(clinic)
    async with clinics() as clinic:
        again = clinic.reception.job(TranscribeAudio, job_id)
        assert await again.result(timeout=20) == transcript
        assert await TranscriptionClient(clinic.reception).get(transcript.transcript_id) == (
            transcript
        )


async def test_only_the_submitter_finds_a_job_with_its_transcript(clinics: Clinics) -> None:
    async with clinics() as clinic:
        job_id, _ = await transcribed(clinic)
        with pytest.raises(NotFound):
            await clinic.stranger.job(TranscribeAudio, job_id, submitter="reception").status()


async def test_a_transcript_is_a_row_with_its_owner(clinics: Clinics) -> None:
    async with clinics() as clinic:
        _, transcript = await transcribed(clinic)
    engine = store_engine("transcription", is_reading=True)
    async with engine.connect() as connection:
        rows = (
            await connection.execute(text("SELECT transcript_id, owner FROM transcripts"))
        ).all()
    await engine.dispose()
    assert [tuple(row) for row in rows] == [(str(transcript.transcript_id), "reception")]


async def test_a_transcript_of_another_owner_is_not_replaced(clinics: Clinics) -> None:
    async with clinics() as clinic:
        _, transcript = await transcribed(clinic)
    async with StoredTranscripts.opened() as repository:
        await repository.save(transcript, owner="reception")
        with pytest.raises(AlreadyExists, match="another service owns the transcript"):
            await repository.save(transcript, owner="stranger")
        assert await repository.find(uuid4()) is None


async def test_progress_names_each_utterance_and_the_number_of_utterances(
    clinics: Clinics,
) -> None:
    async with clinics() as clinic:
        job = await TranscriptionClient(clinic.reception).create(SAID)
        notes = [(update.number, update.note) async for update in job.updates()]
    assert notes == [
        (each, f"utterance {each} of {UTTERANCES}, {each} of {UTTERANCES} s")
        for each in range(1, UTTERANCES + 1)
    ]


async def test_a_cancelled_job_ends_between_two_utterances_and_stores_no_transcript(
    clinics: Clinics,
) -> None:
    recognisers = Recognisers()

    async def watched(job: TranscribeAudio, context: Context, session: AsyncSession) -> Transcript:
        recognisers.context = context
        return await stored.transcribe(job, context, session)

    async with clinics(_router(recognisers, watched)) as clinic:
        job = await TranscriptionClient(clinic.reception).create(SAID)
        await until(lambda: recognisers.heard, "the first utterance")
        await job.cancel(reason="the wrong recording")
        with pytest.raises(Cancelled, match="the wrong recording"):
            await job.result(timeout=20)
        assert (await job.status()).state == "cancelled"
    assert recognisers.heard < UTTERANCES
    assert await _count() == 0


async def _count() -> int:
    engine = store_engine("transcription", is_reading=True)
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT transcript_id FROM transcripts"))).all()
    await engine.dispose()
    return len(rows)


def test_the_worker_keeps_transcripts_in_its_store_if_it_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BUS_STORE", raising=False)
    assert transcription.chosen_router() is service.router
    monkeypatch.setenv("BUS_STORE", "sqlite:////srv/transcription.db")
    assert transcription.chosen_router() is stored.router
