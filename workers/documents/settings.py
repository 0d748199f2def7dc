"""Settings of the documentation worker, read from the environment and validated once.

No other module of this package reads the environment.
"""

import os
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from bus import ConfigurationError
from bus.settings import EnvironmentSettings

__all__ = ["MAX_PROCESSES", "DocumentsSettings", "load_settings"]

MAX_PROCESSES = 8
"""Maximum number of documents that are rendered at a time."""
MIN_PROCESSES = 2
"""Minimum of the default number of processes: one slow document must not stop the others."""


class DocumentsSettings(EnvironmentSettings):
    """Settings of the worker.

    The environment variable of a field is the field's name in capitals with the prefix
    `DOCUMENTS_`.
    """

    model_config = SettingsConfigDict(env_prefix="DOCUMENTS_")

    folder: Path = Path("documents")
    """Folder for documents. If it is missing, it is created, and only this user can access it."""
    clinic_name: str = Field(default="Example Clinic", min_length=1, max_length=80)
    """First line of the letterhead."""
    clinic_address: str = Field(default="", max_length=160)
    """Second line of the letterhead, such as address and telephone."""
    page_size: Literal["a4", "letter"] = "a4"
    timezone: str = "UTC"
    """Time zone of the dates on the pages, by its IANA name, such as `Europe/Athens`."""
    kept_notes: int = Field(default=10_000, gt=0, le=10_000_000)
    """Maximum number of notes in the memory repository. The oldest are removed first."""

    processes: int | None = Field(default=None, ge=1, le=MAX_PROCESSES)
    """Number of rendering processes. The default is the number of CPUs, from 2 to 8."""
    max_seconds: float = Field(default=30, gt=0, le=120)
    """Maximum seconds for the rendering of one document.

    The slowest note that the contract allows takes 4 s. The maximum is 120 s, because a job may
    have two formats and has 300 s.
    """
    max_memory: int = Field(default=1_000_000_000, ge=300_000_000)
    """Maximum bytes of the address space of a rendering process. The largest note needs 252 MB."""
    max_bytes: int = Field(default=20_000_000, gt=0)
    """Maximum bytes of a document. The largest note that the contract allows takes 3.2 MB."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("must be an IANA time zone. Write a name such as Europe/Athens.")
        return name

    @property
    def process_count(self) -> int:
        """Number of rendering processes: the setting `processes`, or its default."""
        cpus = os.cpu_count() or MIN_PROCESSES
        return self.processes or min(max(cpus, MIN_PROCESSES), MAX_PROCESSES)

    @property
    def zone(self) -> ZoneInfo:
        """Time zone of the setting `timezone`."""
        return ZoneInfo(self.timezone)


def load_settings(**overrides: object) -> DocumentsSettings:
    """Return the settings of this process.

    Raise `ConfigurationError` if variables are invalid. The error never contains their values.
    """
    try:
        return DocumentsSettings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        faults = "; ".join(
            f"DOCUMENTS_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        raise ConfigurationError(f"settings: {faults}") from None
