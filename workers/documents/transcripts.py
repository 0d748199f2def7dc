"""A note's subjective section, from the transcription service."""

from uuid import UUID

from bus import NotFound, OutOfRange, Sender, Unavailable
from contracts.documentation.v1 import LONGEST_SECTION
from contracts.transcription.client import TranscriptionClient

__all__ = ["transcript_text"]


async def transcript_text(bus: Sender, transcription_id: UUID) -> str:
    """The transcript's text, which is empty for a silent recording.

    Raises `NotFound`, `OutOfRange` where it is longer than a section may be, `Unavailable` where nobody can be asked now.
    """
    try:
        transcript = await TranscriptionClient(bus).get(transcription_id)
    except NotFound as error:
        raise NotFound("there is no transcript of this transcription_id; its job may still run, or it is no longer kept") from error
    except Unavailable as error:
        raise Unavailable("the transcription service does not answer now; try again later, or send the subjective section") from error
    if len(transcript.text) > LONGEST_SECTION:
        raise OutOfRange(f"the transcript is longer than a section may be ({LONGEST_SECTION:,} characters); send what is needed of it")
    return transcript.text
