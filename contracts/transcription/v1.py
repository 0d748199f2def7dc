"""Version 1 of the contracts of the transcription service, which turns recordings into text."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from bus import Event, Job, Message, Request, Sensitive, contract

__all__ = ["GetTranscript", "Segment", "TranscribeAudio", "Transcript", "TranscriptCompleted"]


class Segment(Message):
    """One utterance of a recording."""

    start: float = Field(ge=0)
    """Seconds from the recording's beginning to the first word."""
    end: float = Field(ge=0)
    """Seconds from the recording's beginning to the end of the last word."""
    text: Sensitive[str]
    confidence: float = Field(ge=0, le=1)
    """Engine's confidence in these words. Values of different engines are not comparable."""


class Transcript(Message):
    """Text of a recording. The transcript of a silent recording has empty text and no segments."""

    transcript_id: UUID
    text: Sensitive[str]
    """Texts of all segments, one line each."""
    confidence: float = Field(ge=0, le=1)
    """Mean confidence of the segments, weighted by their words; 0 if there are no words."""
    duration: float = Field(ge=0)
    """Length of the recording in seconds."""
    language: str
    engine: str
    """Name of the engine, such as `pocketsphinx`."""
    segments: tuple[Segment, ...]


@contract("transcription.get", version=1, permission="read:transcriptions", idempotent=True)
class GetTranscript(Request[Transcript]):
    """Request for a finished transcript. The error is `not_found` if the transcript is unknown."""

    transcript_id: UUID


@contract("transcription.transcribe", version=1, permission="write:transcriptions")
class TranscribeAudio(Job[Transcript]):
    """Job that turns a recording into text."""

    audio_url: Sensitive[str] = Field(min_length=1, max_length=4096)
    """Location of the WAV recording: a path or `file:` URL on the worker's disk, or a web URL.

    A web URL has the scheme `http` or `https`.
    """
    language: Literal["en"] = "en"
    """Language of the recording. Both engines support English.

    A later version may add other values. A worker of this version refuses such a value.
    """


@contract("transcription.completed", version=1)
class TranscriptCompleted(Event):
    """Event that a transcript is available.

    The event does not contain the text, because many services can receive an event and the words of
    a patient are confidential.
    """

    transcript_id: UUID
    duration: float = Field(ge=0)
    """Length of the recording in seconds."""
    words: int = Field(ge=0)
    """Number of words in the transcript."""
