"""Port for speech recognition, and the loader of its engines."""

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
    """Value from 0 to 1; each engine documents its calculation."""
    start: float
    """Seconds to the first word."""
    end: float
    """Seconds to the end of the last word."""

    def later(self, seconds: float) -> "Words":
        """Return the same words `seconds` later, rounded to milliseconds."""
        return replace(self, start=round(self.start + seconds, 3), end=round(self.end + seconds, 3))


class Engine(Protocol):
    """Speech recogniser, which one thread uses at a time."""

    @property
    def name(self) -> str:
        """Name of the engine in its transcripts."""
        ...

    def recognise(self, utterance: Samples) -> Words | None:
        """Return the words in at most 15 s of sound, or None if there are none.

        Times count from the beginning of the sound. The same samples give the same words,
        independent of earlier calls. A job may run twice, and one patient's recording must not
        affect another's.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Engine and model to load; unlike a loaded engine, it can be sent to another process."""

    engine: str
    model_dir: Path | None = None


# These are names of modules, and not classes. An engine without its library must not matter until
# the setting selects it.
MODULES = {
    "pocketsphinx": "workers.transcription.pocketsphinx_engine",
    "faster-whisper": "workers.transcription.whisper_engine",
}


def load_engine(spec: EngineSpec) -> Engine:
    """Load an engine and its model into memory, which takes seconds.

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
