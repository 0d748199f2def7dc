"""Interface of the speech-recognition engines, and the function that loads an engine."""

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

from bus import ConfigurationError
from workers.transcription.audio import Samples

__all__ = ["Engine", "EngineSpec", "Words", "load_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Recognised words of one utterance."""

    text: str
    confidence: float
    """Value from 0 to 1. Each engine's method `recognise` documents the calculation."""
    start: float
    """Seconds from the beginning of the sound to the first word."""
    end: float
    """Seconds from the beginning of the sound to the end of the last word."""

    def later(self, seconds: float) -> "Words":
        """Return the words with `seconds` added to their times, rounded to milliseconds."""
        return replace(self, start=round(self.start + seconds, 3), end=round(self.end + seconds, 3))


class Engine(Protocol):
    """Speech recogniser. Only one thread may use it at a time."""

    @property
    def name(self) -> str:
        """Name of the engine, which its transcripts contain."""
        ...

    def recognise(self, utterance: Samples) -> Words | None:
        """Return the words in at most 15 s of sound, or None if the sound has no words.

        Times count from the beginning of the sound. The same samples must always give the same
        words, independent of earlier calls. The reasons are that a job may run twice, and that the
        recording of one patient must not affect the transcript of another patient.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Name of an engine, and its model. Unlike an engine, it can be sent to another process."""

    engine: str
    model_dir: Path | None = None


# The values are names of modules and not classes. An engine's library is only imported if the
# setting selects that engine.
MODULES = {
    "pocketsphinx": "workers.transcription.pocketsphinx_engine",
    "faster-whisper": "workers.transcription.whisper_engine",
}


def load_engine(spec: EngineSpec) -> Engine:
    """Load an engine and its model into memory. This takes seconds.

    Raise `ConfigurationError` if the library or the model is missing.
    """
    try:
        module = import_module(MODULES[spec.engine])
    except KeyError:
        known = f"Set TRANSCRIPTION_ENGINE to one of {', '.join(MODULES)}."
        raise ConfigurationError(f"the engine {spec.engine!r} does not exist. {known}") from None
    except ModuleNotFoundError as error:
        problem = f"the engine {spec.engine} is not installed"
        raise ConfigurationError(f"{problem}. Run: pip install {spec.engine}") from error
    engine: Engine = module.load(spec.model_dir)
    return engine
