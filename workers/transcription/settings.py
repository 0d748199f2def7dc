"""Settings of the transcription worker, read from the environment and validated once.

No other module of this package reads the environment.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from bus import ConfigurationError
from bus.settings import EnvironmentSettings
from workers.transcription.addresses import canonical_host

__all__ = ["TranscriptionSettings", "load_settings"]


class TranscriptionSettings(EnvironmentSettings):
    """Settings of the worker.

    The environment variable of a field is the field's name in capitals with the prefix
    `TRANSCRIPTION_`.
    """

    model_config = SettingsConfigDict(env_prefix="TRANSCRIPTION_")

    engine: Literal["pocketsphinx", "faster-whisper"] = "pocketsphinx"
    model_dir: Path | None = None
    """Folder of a model on this machine.

    faster-whisper requires this setting. pocketsphinx uses its own model if the setting is missing.
    No model is downloaded.
    """
    max_bytes: int = Field(default=200_000_000, gt=0, le=10_000_000_000)
    """Maximum bytes of a recording.

    The default is enough for 35 minutes in CD quality, or 100 minutes at 16 kHz mono.
    """
    max_seconds: float = Field(default=1800, gt=0, le=86_400)
    """Maximum seconds of a recording. `max_bytes` is not enough, because few bytes can claim days.

    The recognition of half an hour needs 115 MB. With two jobs at a time on two cores, it takes up
    to 6 minutes. A job's time limit is 10 minutes.
    """
    fetch_timeout: float = Field(default=60, gt=0, le=3600)
    """Maximum seconds of a whole download, redirects included.

    The default is far below the job's time limit of 600 s, because recognition needs most of it.
    """
    connect_timeout: float = Field(default=3, gt=0, le=300)
    """Maximum seconds until a server accepts the connection.

    The default is short, so that an unreachable URL is reported within 5 s.
    """
    start_timeout: float = Field(default=25, gt=0, le=3600)
    """Maximum seconds until a recogniser has loaded its model. pocketsphinx takes 0.5 to 2 s.

    The default is below the 30 s that the bus allows for the start of a service.
    """
    proxy: str | None = None
    """URL of an HTTP proxy for downloads."""
    roots: tuple[Path, ...] = ()
    """Directories, as a JSON list. If set, the worker reads only files in these directories."""
    hosts: frozenset[str] = frozenset()
    """Host names and addresses without ports, as a JSON list.

    If set, the worker downloads only from these hosts, and they may have any address. If empty, the
    worker downloads from each host with a public address. Both also apply to redirects.
    """
    kept_transcripts: int = Field(default=10_000, gt=0, le=10_000_000)
    """Maximum number of transcripts in the memory repository. The oldest are removed first."""

    @field_validator("hosts")
    @classmethod
    def _canonical(cls, hosts: frozenset[str]) -> frozenset[str]:
        try:
            return frozenset(map(canonical_host, hosts))
        except ValueError as error:
            problem = "each entry must be a host name or address"
            raise ValueError(f"{problem}, without scheme, port, path, zone or *") from error


def load_settings(**overrides: object) -> TranscriptionSettings:
    """Return the settings of this process.

    Raise `ConfigurationError` if variables are invalid. The error never contains their values.
    """
    try:
        return TranscriptionSettings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        faults = "; ".join(
            f"TRANSCRIPTION_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}"
            for e in error.errors()
        )
        raise ConfigurationError(f"settings: {faults}") from None
