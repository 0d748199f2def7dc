"""The transcription service: a recording goes in, its transcript comes out.

    source        where a recording comes from: a file, or a download
    audio         a WAV of any kind becomes 16 kHz mono
    segmentation  speech becomes utterances
    engine        an utterance becomes words (a Protocol; pocketsphinx and, optionally, faster-whisper)
    recogniser    all of the above after the source, in a process of its own
    pool          those processes, leased one to a job
    service       the handlers

The settings are in `settings`, and nothing else here reads the environment.

`bus run workers.transcription:router` serves it, and so does `faststream run workers.transcription:app`.
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
    """The same handlers as a FastStream application; made when it is asked for, as FastStream need not be installed."""
    return import_module("bus.integrations.faststream").application(router)
