"""Bounds of a job's progress. Another version or another library can send any JSON as an update."""

from typing import Annotated

from pydantic import Strict

from bus.contracts.contract import decode
from bus.messaging.envelope import MAX_TEXT_LENGTH, Progress

__all__ = ["bound_progress", "decode_progress"]

MAX_NUMBER = 2**53 - 1
"""Maximum number of an update, the largest whole number that each JSON library reads exactly."""


class ReceivedProgress(Progress):
    """Progress as another service sent it. A boolean or a text is not a number."""

    progress: Annotated[float, Strict()]
    number: Annotated[int, Strict()] = 0


def decode_progress(body: bytes) -> Progress:
    """Return the progress of an update, with its values inside their bounds.

    Raises:
        ContractViolation: The body is not a progress update, or its number is NaN or infinite.
    """
    return bound_progress(decode(ReceivedProgress, body, subject="invalid progress update"))


def bound_progress(update: Progress) -> Progress:
    """Return an update with a number from 0 to 1, and texts of at most `MAX_TEXT_LENGTH`.

    A number outside of the bounds becomes the nearest bound, and a longer text is cut.
    """
    return Progress(
        progress=min(max(update.progress, 0.0), 1.0),
        note=_shorten(update.note),
        error=None if update.error is None else _shorten(update.error),
        number=min(max(update.number, 0), MAX_NUMBER),
    )


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"
