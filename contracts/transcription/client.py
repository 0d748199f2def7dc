"""The transcription service, for who calls it."""

from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID

from bus import JobHandle, Progress, Sender
from contracts.transcription.v1 import GetTranscript, TranscribeAudio, Transcript

__all__ = ["TranscriptionClient"]


class TranscriptionClient:
    """Typed calls over a `Bus`, or over a handler's `context.bus`. What they raise is what `Client.request` and `Client.submit` do."""

    def __init__(self, bus: Sender) -> None:
        self._bus = bus

    async def create(self, audio_url: str, *, language: Literal["en"] = "en") -> JobHandle[Transcript]:
        """Hand over a recording; returns when the broker has confirmed. The job's `result()` is the transcript."""
        return await self._bus.submit(TranscribeAudio(audio_url=audio_url, language=language))

    def status(self, job: JobHandle[Transcript]) -> AsyncIterator[Progress]:
        """How far a job is, as it goes on; ends with the job. Who submitted it hears it, and nobody else."""
        return job.updates()

    async def get(self, transcript_id: UUID, *, timeout: float | None = None) -> Transcript:
        """A finished transcript, within `timeout` seconds; `NotFound` where there is none (yet)."""
        return await self._bus.request(GetTranscript(transcript_id=transcript_id), timeout=timeout)
