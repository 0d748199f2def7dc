"""Program of a speech-recognition process.

The process decodes a recording, divides it into utterances, and sends the words of each utterance
to the service.

A thread cannot replace the process, because pocketsphinx holds the GIL while it decodes. In a test
with a thread, each utterance of examples/data/dictation.wav blocked the event loop for 0.5 s. The
load of the model blocked the event loop for 0.44 s. An utterance of 70 s blocked it for 10.4 s,
which is longer than a heartbeat of 10 s. It is possible to decode the sound in pieces of 30 ms. The
event loop is then still blocked for 0.11 s at the end of each utterance, and accuracy is lower.

With a process, the event loop is blocked for 4 ms. If a hostile WAV crashes a C library, only one
process ends, and not the service. The service can end a recognition immediately by killing the
process.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from bus import BusError, Internal
from workers.processes.child import end_with_worker, ignore_stop_signals
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
    utterances: int = 0
    """Number of utterances in the recording. 0 if it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Message that one utterance is recognised."""

    words: Words | None
    """Words with times from the recording's beginning. None if the utterance was only noise."""
    position: float
    """Seconds of the recording that have been recognised."""


@dataclass(frozen=True, slots=True)
class Done:
    """Message that the whole recording is recognised."""


Message = Ready | Begun | Heard | Done | BusError


def serve(connection: "Connection[Message, None]", spec: EngineSpec, max_seconds: float) -> None:
    """Load the engine, and then recognise each recording that the service sends as an open file.

    This is the main function of the process. It returns when the service has ended.
    """
    ignore_stop_signals()
    end_with_worker()
    # If the service closes the pipe, it raises one of these errors, and this process ends too.
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
    """Yield the messages of a recording. If the recognition fails, the last message is the error.

    If the error is not a `BusError`, only its class is sent, because its text may contain words of
    the patient.
    """
    try:
        yield from recognise(engine, file, max_seconds)
        yield Done()
    except BusError as error:
        yield error
    except Exception as error:  # noqa: BLE001 - a process boundary
        yield Internal(f"the recogniser failed with {type(error).__name__}. Report it as a bug.")


def recognise(engine: Engine, file: int, max_seconds: float) -> Iterator[Begun | Heard]:
    """Recognise the recording in an open file descriptor, and close the descriptor.

    Raise the errors of `read_wav`.
    """
    samples = read_wav(file, max_seconds=max_seconds)
    spans = utterances(samples)
    yield Begun(duration=len(samples) / RATE, engine=engine.name, utterances=len(spans))
    for span in spans:
        words = engine.recognise(span.of(samples))
        yield Heard(words=words and words.later(span.start), position=span.end)
