"""Settings of the transcription worker, from the environment, validated once. Nothing else here reads the environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus import ConfigurationError

__all__ = ["TranscriptionSettings", "load_settings"]


class TranscriptionSettings(BaseSettings):
    """What can be set; each variable is the field's name in capitals with the prefix `TRANSCRIPTION_`."""

    model_config = SettingsConfigDict(env_prefix="TRANSCRIPTION_", frozen=True, extra="ignore", hide_input_in_errors=True)

    engine: Literal["pocketsphinx", "faster-whisper"] = "pocketsphinx"
    model_dir: Path | None = None
    """A model on this machine. pocketsphinx ships one and takes another; faster-whisper needs one, nothing is downloaded."""
    max_bytes: int = Field(default=200_000_000, gt=0)
    """Bytes of a recording; 35 minutes of CD quality, 100 minutes at 16 kHz mono."""
    max_seconds: float = Field(default=1800, gt=0)
    """Seconds of a recording, so that few bytes cannot claim days. Half an hour takes 115 MB while it is recognised, and with
    two jobs at a time on two cores up to 6 of the 10 minutes that a job has."""
    fetch_timeout: float = Field(default=60, gt=0)
    """Seconds for a whole download, redirects included; well below the job's 600, so that recognition has its share."""
    connect_timeout: float = Field(default=3, gt=0)
    """Seconds until a server has to have taken the connection: an unreachable URL is reported within 5 s."""
    start_timeout: float = Field(default=25, gt=0)
    """Seconds until a recogniser has loaded its model (0.5 to 2 s for pocketsphinx); below the bus's 30 s for a start."""
    proxy: str | None = None
    """An HTTP proxy's URL for downloads."""
    roots: tuple[Path, ...] = ()
    """Directories, as a JSON list; when set, only files inside them are read."""
    hosts: frozenset[str] = frozenset()
    """Host names, as a JSON list; when set, only these are downloaded from, redirects included."""
    kept_transcripts: int = Field(default=10_000, gt=0)
    """Transcripts that the repository in memory keeps; the oldest go first."""


def load_settings(**overrides: object) -> TranscriptionSettings:
    """The settings of this process; `ConfigurationError` names the variables at fault, never their values."""
    try:
        return TranscriptionSettings(**overrides)  # type: ignore[arg-type]  # pydantic validates what it is given
    except ValidationError as error:
        faults = "; ".join(f"TRANSCRIPTION_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"settings: {faults}") from None
