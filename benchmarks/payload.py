"""The message that everybody sends: 300 bytes of JSON, one pydantic model. It imports pydantic only, as peers' environments have it."""

from collections.abc import Iterator
from itertools import count

from pydantic import BaseModel, ConfigDict

__all__ = ["FIRST", "SIZE", "Payload", "fields", "numbers"]

SIZE = 300
"""Bytes of the JSON."""
FIRST = 10_000_000
"""Numbers begin here, so that each has eight digits and every message the same size."""
TEXT = "the patient reports no pain since the last visit, sleeps well and walks half an hour each day; "


class Payload(BaseModel):
    """As the bus's own messages: frozen, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


def fields(number: int) -> dict[str, object]:
    """What the message with this number contains, ready for the model."""
    return {"number": number, "audio_url": "https://audio.example/1.wav", "language": "en", "seconds": 12.5, "text": FILLER}


def numbers() -> Iterator[int]:
    """Numbers for messages, each once in this process."""
    return count(FIRST)


FILLER = ""
FILLER = (TEXT * 4)[: SIZE - len(Payload.model_validate(fields(FIRST)).model_dump_json())]
