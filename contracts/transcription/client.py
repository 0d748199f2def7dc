"""Typed client of the transcription service."""

from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID

from bus import JobHandle, Progress, Sender
from contracts.transcription.v1 import GetTranscript, TranscribeAudio, Transcript

__all__ = ["TranscriptionClient"]


class TranscriptionClient:
    """Typed calls over a `Bus`, or over a handler's `context.bus`.

    They raise the same errors as `Client.request` and `Client.submit`.
    """

    def __init__(self, bus: Sender) -> None:
        self._bus = bus

    async def create(
        self, audio_url: str, *, language: Literal["en"] = "en"
    ) -> JobHandle[Transcript]:
        """Submit a recording, and return when the broker has confirmed.

        The job's `result()` is the transcript.
        """
        return await self._bus.submit(TranscribeAudio(audio_url=audio_url, language=language))

    def status(self, job: JobHandle[Transcript]) -> AsyncIterator[Progress]:
        """Return an iterator over a job's progress, which ends with the job.

        Only the submitter of the job receives its progress.
        """
        return job.updates()

    async def get(self, transcript_id: UUID, *, timeout: float | None = None) -> Transcript:
        """Return a finished transcript within `timeout` seconds.

        Raise `NotFound` if it does not exist, or does not exist yet.
        """
        return await self._bus.request(GetTranscript(transcript_id=transcript_id), timeout=timeout)
