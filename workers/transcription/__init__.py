"""Transcription service, which turns a recording into a transcript.

    source             opens a recording: a file, or a download
    download           downloads a recording by http(s)
    checked_transport  sends the requests of downloads to allowed hosts only
    addresses          tells public addresses from special ones
    resolver           resolves host names
    audio              converts any WAV to 16 kHz mono
    segmentation       divides speech into utterances
    engine             recognises the words of an utterance (pocketsphinx or faster-whisper)
    recogniser         runs audio, segmentation and engine in a separate process
    process            controls such a process from the service
    service            has the handlers, which keep transcripts in memory
    stored             has the handlers that keep transcripts in a durable store

The package `workers.processes` starts and ends the processes.

Only the module `settings` reads the environment.

Start the service with `bus run workers.transcription:router`, or with
`faststream run workers.transcription:app`. With `BUS_STORE`, `router` is that of `stored`.
"""

from functools import cache
from importlib import import_module
from typing import Any, cast

from bus import Router
from workers.store_choice import has_store
from workers.transcription import service

__all__ = ["chosen_router", "router"]


def chosen_router() -> Router:
    """Return the router that keeps transcripts in the store, or in memory without a store."""
    if not has_store():
        return service.router
    # SQLAlchemy is imported only for a store, and may not be installed.
    return cast("Router", import_module("workers.transcription.stored").router)


router = chosen_router()


def __getattr__(name: str) -> Any:
    if name == "app":
        return _application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _application() -> Any:
    """Return a FastStream application with the handlers of this service.

    The application is created only when it is used, because FastStream may not be installed.
    """
    return import_module("bus.integrations.faststream").application(router)
