"""The message that every peer sends: 300 bytes of JSON, one pydantic model.

This module imports only pydantic, which is in the environment of every peer.
"""

from collections.abc import Iterator
from itertools import count

from pydantic import BaseModel, ConfigDict

__all__ = ["FIRST", "SIZE", "Payload", "fields", "numbers"]

SIZE = 300
"""Bytes of the message as JSON."""
FIRST = 10_000_000
"""The first number: each number has eight digits, so every message has the same size."""
TEXT = "the reader returns the novel after two weeks, borrows the next one and reads for an hour; "


class Payload(BaseModel):
    """The message, configured like the bus's own: frozen, unknown fields ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


def fields(number: int) -> dict[str, object]:
    """Return the fields of the message with this number, as input for the model."""
    return {
        "number": number,
        "audio_url": "https://audio.example/1.wav",
        "language": "en",
        "seconds": 12.5,
        "text": FILLER,
    }


def numbers() -> Iterator[int]:
    """Return numbers for messages, each once in this process."""
    return count(FIRST)


FILLER = ""
FILLER = (TEXT * 4)[: SIZE - len(Payload.model_validate(fields(FIRST)).model_dump_json())]
