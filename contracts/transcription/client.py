"""Typed client of the transcription service."""

from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID

from bus import JobHandle, Progress, Sender
from contracts.transcription.v1 import GetTranscript, TranscribeAudio, Transcript

__all__ = ["TranscriptionClient"]


class TranscriptionClient:
    """Typed calls over a `Bus`, or over a handler's `context.bus`.

    The methods raise the same errors as `Bus.request` and `Bus.submit`.
    """

    def __init__(self, bus: Sender) -> None:
        self._bus = bus

    async def create(
        self, audio_url: str, *, language: Literal["en"] = "en"
    ) -> JobHandle[Transcript]:
        """Submit a recording, and return its job when the broker has confirmed it.

        The job's `result()` returns the transcript.
        """
        return await self._bus.submit(TranscribeAudio(audio_url=audio_url, language=language))

    def status(self, job: JobHandle[Transcript]) -> AsyncIterator[Progress]:
        """Return an iterator over a job's progress updates. It ends when the job ends.

        Only the bus that submitted the job receives its progress updates.
        """
        return job.updates()

    async def get(self, transcript_id: UUID, *, timeout: float | None = None) -> Transcript:
        """Return a finished transcript. Wait at most `timeout` seconds for the reply.

        Raise `NotFound` if the transcript does not exist, or is not finished yet.
        """
        return await self._bus.request(GetTranscript(transcript_id=transcript_id), timeout=timeout)
