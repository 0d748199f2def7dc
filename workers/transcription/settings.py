"""Settings of the transcription worker, read from the environment and validated once.

No other module here reads the environment.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus import ConfigurationError

__all__ = ["TranscriptionSettings", "load_settings"]


class TranscriptionSettings(BaseSettings):
    """Settings of the worker.

    Each variable is the field's name in capitals with the prefix `TRANSCRIPTION_`.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRANSCRIPTION_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    engine: Literal["pocketsphinx", "faster-whisper"] = "pocketsphinx"
    model_dir: Path | None = None
    """Folder of a model on this machine.

    pocketsphinx includes a model and accepts another; faster-whisper needs one. No model is
    downloaded.
    """
    max_bytes: int = Field(default=200_000_000, gt=0)
    """Maximum bytes of a recording: 35 minutes of CD quality, 100 minutes at 16 kHz mono."""
    max_seconds: float = Field(default=1800, gt=0)
    """Maximum seconds of a recording, because few bytes can claim days.

    Half an hour takes 115 MB while it is recognised. With two jobs at a time on two cores it takes
    up to 6 of the 10 minutes that a job has.
    """
    fetch_timeout: float = Field(default=60, gt=0)
    """Seconds for a whole download, redirects included.

    The value is well below the job's 600 s, because recognition needs its share.
    """
    connect_timeout: float = Field(default=3, gt=0)
    """Seconds for a server to accept the connection: an unreachable URL is reported within 5 s."""
    start_timeout: float = Field(default=25, gt=0)
    """Seconds for a recogniser to load its model (0.5 to 2 s for pocketsphinx).

    The value is below the bus's 30 s for a start.
    """
    proxy: str | None = None
    """URL of an HTTP proxy for downloads."""
    roots: tuple[Path, ...] = ()
    """Directories, as a JSON list; if set, only files inside them are read."""
    hosts: frozenset[str] = frozenset()
    """Host names, as a JSON list; if set, only these serve downloads, redirects included."""
    kept_transcripts: int = Field(default=10_000, gt=0)
    """Maximum transcripts in the memory repository; the oldest are removed first."""


def load_settings(**overrides: object) -> TranscriptionSettings:
    """Return the settings of this process.

    `ConfigurationError` names the invalid variables, and never their values.
    """
    try:
        return TranscriptionSettings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        faults = "; ".join(
            f"TRANSCRIPTION_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}"
            for e in error.errors()
        )
        raise ConfigurationError(f"settings: {faults}") from None
