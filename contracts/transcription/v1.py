"""Contracts of the transcription service, version 1: recordings become text."""

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
    """How sure the engine is of these words; comparable within one engine, not between two."""


class Transcript(Message):
    """What was said in a recording; a silent one has empty text and no segments."""

    transcript_id: UUID
    text: Sensitive[str]
    """All segments' texts, a line each."""
    confidence: float = Field(ge=0, le=1)
    """The segments' confidences, weighted by their words; 0 where nothing was said."""
    duration: float = Field(ge=0)
    """Seconds that the recording lasts."""
    language: str
    engine: str
    """What recognised it, such as `pocketsphinx`."""
    segments: tuple[Segment, ...]


@contract("transcription.get", version=1, permission="read:transcriptions", idempotent=True)
class GetTranscript(Request[Transcript]):
    """Ask for a finished transcript; `not_found` where there is none."""

    transcript_id: UUID


@contract("transcription.transcribe", version=1, permission="write:transcriptions")
class TranscribeAudio(Job[Transcript]):
    """Turn a recording into text."""

    audio_url: Sensitive[str] = Field(min_length=1, max_length=4096)
    """A WAV: a path or `file:` URL on the worker's disk, or an `http(s)` URL."""
    language: Literal["en"] = "en"
    """English is what both engines can; another language will be a new value, and an old worker refuses it."""


@contract("transcription.completed", version=1)
class TranscriptCompleted(Event):
    """A transcript can be asked for. It holds no text: an event must not spread what a patient said."""

    transcript_id: UUID
    duration: float = Field(ge=0)
    """Seconds that the recording lasts."""
    words: int = Field(ge=0)
    """How many words the transcript has."""
