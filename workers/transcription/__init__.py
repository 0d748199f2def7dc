"""Transcription service, which turns a recording into a transcript.

    source        the source of a recording: a file, or a download
    audio         any WAV to 16 kHz mono
    segmentation  speech to utterances
    engine        an utterance to words (a Protocol; pocketsphinx and, optionally, faster-whisper)
    recogniser    all of the above after the source, in its own process
    pool          these processes, each leased to one job
    service       the handlers

The settings are in `settings`, and no other module here reads the environment.

`bus run workers.transcription:router` serves it, and so does
`faststream run workers.transcription:app`.
"""

from functools import cache
from importlib import import_module
from typing import Any

from workers.transcription.service import router

__all__ = ["router"]


def __getattr__(name: str) -> Any:
    if name == "app":
        return _application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _application() -> Any:
    """Return the same handlers as a FastStream application.

    It is created on its first use, because FastStream need not be installed.
    """
    return import_module("bus.integrations.faststream").application(router)
