"""Recognition in a process of its own: decode, segment, recognise; one utterance out after the other.

A thread would not do: pocketsphinx holds the GIL while it decodes. Measured: with a thread the event loop stood still for
0.5 s in each utterance of the dictation, 0.44 s while the model was loaded, and 10.4 s in an utterance of 70 s, which is past
a heartbeat of 10 s. Feeding 30 ms pieces leaves 0.11 s at each utterance's end and costs accuracy. With a process it stands still for 4 ms,
a hostile WAV that crashes a C library costs one process and not the service, and work can be ended at once, by killing it.
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
    """The engine is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The recording can be read."""

    duration: float
    """Seconds."""
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One utterance is recognised."""

    words: Words | None
    """Times from the recording's beginning; None where the utterance was a noise."""
    position: float
    """Seconds of the recording that are done."""


@dataclass(frozen=True, slots=True)
class Done:
    """The recording is recognised to its end."""


Message = Ready | Begun | Heard | Done | BusError


def serve(connection: "Connection[Message, None]", spec: EngineSpec, max_seconds: float) -> None:
    """The process: load the engine, then recognise each recording whose open file comes in, until the other side is gone."""
    # Ctrl-C reaches the whole process group; the service decides what is finished first, and this process follows it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The other side gone, even by kill -9, ends this process: at once when idle, else after the current utterance.
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
    """What comes of a recording, an error as the last message; of a foreign error the class alone, as its text may be a patient's."""
    try:
        yield from recognise(engine, file, max_seconds)
        yield Done()
    except BusError as error:
        yield error
    except Exception as error:  # noqa: BLE001 - a process boundary
        yield Internal(f"the recogniser failed with {type(error).__name__}")


def recognise(engine: Engine, file: int, max_seconds: float) -> Iterator[Begun | Heard]:
    """The recording in an open file descriptor, which is closed; raises what `read_wav` raises."""
    samples = read_wav(file, max_seconds=max_seconds)
    yield Begun(duration=len(samples) / RATE, engine=engine.name)
    for span in utterances(samples):
        words = engine.recognise(span.of(samples))
        yield Heard(words=words and words.later(span.start), position=span.end)
