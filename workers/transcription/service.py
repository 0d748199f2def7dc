"""Handlers of the transcription service."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid5

from bus import Cancelled, Context, NotFound, RetryPolicy, Router
from contracts.transcription.v1 import (
    GetTranscript,
    Segment,
    TranscribeAudio,
    Transcript,
    TranscriptCompleted,
)
from workers.processes.pool import Pool
from workers.transcription.download import Downloads
from workers.transcription.engine import EngineSpec, Words
from workers.transcription.process import RecogniserProcess
from workers.transcription.recogniser import Begun
from workers.transcription.repository import MemoryRepository, TranscriptRepository
from workers.transcription.settings import TranscriptionSettings, load_settings
from workers.transcription.source import Sources

__all__ = [
    "CONCURRENCY",
    "JOB_TIMEOUT",
    "RETRY",
    "Transcription",
    "completed",
    "get",
    "opened",
    "router",
    "transcribe",
    "transcript_id_of",
    "transcript_of",
]

CONCURRENCY = 2
"""Maximum number of jobs at a time. Each job needs a process that uses a core and 165 MB."""
JOB_TIMEOUT = 600
"""Maximum seconds of one attempt of a job."""
RETRY = RetryPolicy(attempts=5)
TRANSCRIPTS = UUID("6f2a1d0c-4f0e-5d0a-9d5e-7d1f6d1f0c55")
"""Namespace of the UUIDs (RFC 9562, version 5) that are derived from jobs for transcripts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """State that all handlers share. They access it as `context.state`."""

    sources: Sources
    recognisers: Pool[RecogniserProcess]
    repository: TranscriptRepository


@asynccontextmanager
async def lifespan() -> AsyncIterator[Transcription]:
    """Start everything that the handlers share. Transcripts are kept in memory."""
    settings = load_settings()
    async with opened(settings, MemoryRepository(settings.kept_transcripts)) as state:
        yield state


@asynccontextmanager
async def opened(
    settings: TranscriptionSettings, repository: TranscriptRepository
) -> AsyncIterator[Transcription]:
    """Start the recognition processes and the download client, and close them at the end."""
    async with (
        Downloads.opened(settings) as downloads,
        Pool.opened(_starter(settings), size=CONCURRENCY) as recognisers,
    ):
        yield Transcription(
            sources=Sources(downloads, max_bytes=settings.max_bytes, roots=settings.roots),
            recognisers=recognisers,
            repository=repository,
        )


def _starter(settings: TranscriptionSettings) -> Callable[[], Awaitable[RecogniserProcess]]:
    spec = EngineSpec(engine=settings.engine, model_dir=settings.model_dir)
    return partial(
        RecogniserProcess.start,
        spec,
        max_seconds=settings.max_seconds,
        timeout=settings.start_timeout,
    )


router = Router("transcription", lifespan=lifespan)


@router.request(GetTranscript, concurrency=16)
async def get(request: GetTranscript, context: Context) -> Transcript:
    """Return the transcript with this id. Raise `NotFound` if it does not exist."""
    state: Transcription = context.state
    transcript = await state.repository.find(request.transcript_id)
    if transcript is None:
        problem = "the transcript_id is unknown: its job may still run, or it was removed"
        raise NotFound(f"{problem}. Wait for the job, or submit the recording again.")
    return transcript


@router.job(TranscribeAudio, retry=RETRY, timeout=JOB_TIMEOUT, concurrency=CONCURRENCY)
async def transcribe(job: TranscribeAudio, context: Context) -> Transcript:
    """Fetch the recording, recognise it, store the transcript, and publish the event.

    The handler reports progress after each utterance, and ends there if the job was cancelled. If
    the job is redelivered or retried, the handler produces the same transcript with the same id
    again. The store then still has one transcript, and the event is published a second time.
    """
    state: Transcription = context.state
    transcript = await transcript_of(job, context)
    await state.repository.save(transcript, owner=context.envelope.source)
    await context.bus.publish(completed(transcript))
    return transcript


async def transcript_of(job: TranscribeAudio, context: Context) -> Transcript:
    """Fetch the recording of a job, and recognise it.

    Raises:
        Cancelled: The job was cancelled. The recognition ends after the present utterance.
    """
    state: Transcription = context.state
    async with state.sources.open(job.audio_url) as file, state.recognisers.lease() as recogniser:
        return await _recognised(recogniser, file.fileno(), context, job.language)


def completed(transcript: Transcript) -> TranscriptCompleted:
    """Return the event about a transcript. It does not contain the text."""
    return TranscriptCompleted(
        transcript_id=transcript.transcript_id,
        duration=transcript.duration,
        words=len(transcript.text.split()),
    )


def transcript_id_of(context: Context) -> UUID:
    """Return the id of a job's transcript. It is the same for each run of the job.

    A job of another submitter never has the same id, even if it has the same message id.
    """
    return uuid5(TRANSCRIPTS, context.idempotency_key)


async def _recognised(
    recogniser: RecogniserProcess, file: int, context: Context, language: str
) -> Transcript:
    begun = Begun(duration=0, engine="")
    said: list[Words] = []
    number = 0
    async with aclosing(recogniser.recognise(file)) as messages:
        async for message in messages:
            if isinstance(message, Begun):
                begun = message
                continue
            number += 1
            if message.words is not None:
                said.append(message.words)
            await context.progress(
                min(message.position / begun.duration, 1.0), _note(number, message.position, begun)
            )
            if context.cancelled:
                raise Cancelled("the job was cancelled between two utterances.")
    return Transcript(
        transcript_id=transcript_id_of(context),
        text="\n".join(words.text for words in said),
        confidence=_confidence(said),
        duration=begun.duration,
        language=language,
        engine=begun.engine,
        segments=tuple(
            Segment(start=w.start, end=w.end, text=w.text, confidence=w.confidence) for w in said
        ),
    )


def _note(number: int, position: float, begun: Begun) -> str:
    """Return the note for a progress update. It has no words, because clients may display it."""
    utterance = f"utterance {number}" + (f" of {begun.utterances}" if begun.utterances else "")
    return f"{utterance}, {position:.0f} of {begun.duration:.0f} s"


def _confidence(said: list[Words]) -> float:
    """Return the mean confidence over all words, or 0 if there are no words.

    The confidence of an utterance is weighted by its number of words.
    """
    counts = [len(words.text.split()) for words in said]
    return (
        sum(w.confidence * n for w, n in zip(said, counts, strict=True)) / sum(counts)
        if said
        else 0.0
    )
