"""Request of a transcript for the subjective section of a note."""

from uuid import UUID

from bus import NotFound, OutOfRange, Sender, Unavailable
from contracts.documentation.v1 import LONGEST_SECTION
from contracts.transcription.client import TranscriptionClient

__all__ = ["transcript_text"]


async def transcript_text(bus: Sender, transcription_id: UUID) -> str:
    """Return the transcript's text, which is empty for a silent recording.

    Raise `NotFound` if the transcript does not exist, and `OutOfRange` if its text is too long for
    a section. Raise `Unavailable` if the transcription service does not answer now.
    """
    try:
        transcript = await TranscriptionClient(bus).get(transcription_id)
    except NotFound as error:
        problem = "the transcription_id is unknown: its job may still run, or it was removed"
        raise NotFound(f"{problem}. Wait for the job, or send the subjective section.") from error
    except Unavailable as error:
        problem = "the transcription service does not answer now"
        raise Unavailable(f"{problem}. Try again later, or send the subjective section.") from error
    if len(transcript.text) > LONGEST_SECTION:
        problem = f"the transcript is longer than a section may be ({LONGEST_SECTION:,} characters)"
        raise OutOfRange(f"{problem}. Send the necessary part as the subjective section.")
    return transcript.text
