"""The port to speech recognition, and the loader of what is behind it."""

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

from bus import ConfigurationError
from workers.transcription.audio import Samples

__all__ = ["Engine", "EngineSpec", "Words", "load_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What was understood of one utterance."""

    text: str
    confidence: float
    """0 to 1; each engine says how it comes by it."""
    start: float
    """Seconds, to the first word."""
    end: float
    """Seconds, to the end of the last word."""

    def later(self, seconds: float) -> "Words":
        """The same, said `seconds` later; to the millisecond."""
        return replace(self, start=round(self.start + seconds, 3), end=round(self.end + seconds, 3))


class Engine(Protocol):
    """Recognises speech; used by one thread at a time."""

    @property
    def name(self) -> str:
        """What transcripts say recognised them."""
        ...

    def recognise(self, utterance: Samples) -> Words | None:
        """The words in at most 15 s of sound, times from its beginning; None where there are none.

        The same samples give the same words whatever was recognised before: a job may run twice, and nothing of one
        patient's recording may show in another's.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Which engine, with which model; can be handed to another process, as a loaded engine cannot."""

    engine: str
    model_dir: Path | None = None


# Modules and not classes: an engine whose library is not installed must cost nothing until somebody asks for it.
MODULES = {
    "pocketsphinx": "workers.transcription.pocketsphinx_engine",
    "faster-whisper": "workers.transcription.whisper_engine",
}


def load_engine(spec: EngineSpec) -> Engine:
    """The engine with its model in memory (seconds); `ConfigurationError` where the library or the model is missing."""
    try:
        module = import_module(MODULES[spec.engine])
    except KeyError:
        raise ConfigurationError(f"no engine is called {spec.engine!r}; set TRANSCRIPTION_ENGINE to one of {', '.join(MODULES)}") from None
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the engine {spec.engine} is not installed; run: pip install {spec.engine}") from error
    engine: Engine = module.load(spec.model_dir)
    return engine
