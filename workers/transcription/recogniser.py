"""Recognition in its own process: it decodes, segments and recognises, and sends each utterance.

A thread is not enough, because pocketsphinx holds the GIL while it decodes. With a thread, each
utterance of the dictation blocked the event loop for 0.5 s. The load of the model blocked it for
0.44 s. An utterance of 70 s blocked it for 10.4 s, which exceeds a heartbeat of 10 s. Pieces of
30 ms leave 0.11 s at the end of each utterance, and cost accuracy.

A process blocks the event loop for 4 ms. A hostile WAV that crashes a C library costs one process
and not the service. The service can end work at once by killing the process.
"""

import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from bus import BusError, Internal
from workers.transcription.audio import RATE, read_wav
from workers.transcription.engine import Engine, EngineSpec, Words, load_engine
from workers.transcription.segmentation import utterances

__all__ = ["Begun", "Done", "Heard", "Message", "Ready", "recognise", "serve"]


@dataclass(frozen=True, slots=True)
class Ready:
    """Message that the engine is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Message that the recording can be read."""

    duration: float
    """Length of the recording in seconds."""
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Message that one utterance is recognised."""

    words: Words | None
    """Words with times from the recording's beginning, or None if the utterance was a noise."""
    position: float
    """Seconds of the recording that are done."""


@dataclass(frozen=True, slots=True)
class Done:
    """Message that the recording is recognised to its end."""


Message = Ready | Begun | Heard | Done | BusError


def serve(connection: "Connection[Message, None]", spec: EngineSpec, max_seconds: float) -> None:
    """Run the process: load the engine, then recognise each recording that arrives as an open file.

    The process ends with the service.
    """
    # Ctrl-C reaches the whole process group. This process ignores it, because the service decides
    # which work is finished first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The end of the service, even by kill -9, ends this process: at once if it is idle, otherwise
    # after the current utterance.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            engine = load_engine(spec)
        except BusError as error:
            connection.send(error)
            return
        connection.send(Ready())
        while True:
            file = recv_handle(connection)
            for message in _guarded(engine, file, max_seconds):
                connection.send(message)


def _guarded(engine: Engine, file: int, max_seconds: float) -> Iterator[Message]:
    """Yield the messages of a recording, with an error as the last message.

    Of a foreign error only the class is sent, because its text may contain a patient's words.
    """
    try:
        yield from recognise(engine, file, max_seconds)
        yield Done()
    except BusError as error:
        yield error
    except Exception as error:  # noqa: BLE001 - a process boundary
        yield Internal(f"the recogniser failed with {type(error).__name__}. Report it as a bug.")


def recognise(engine: Engine, file: int, max_seconds: float) -> Iterator[Begun | Heard]:
    """Recognise the recording in an open file descriptor, which is closed.

    Raise the errors of `read_wav`.
    """
    samples = read_wav(file, max_seconds=max_seconds)
    yield Begun(duration=len(samples) / RATE, engine=engine.name)
    for span in utterances(samples):
        words = engine.recognise(span.of(samples))
        yield Heard(words=words and words.later(span.start), position=span.end)
