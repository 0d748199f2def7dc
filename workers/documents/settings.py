"""Settings of the documentation worker, from the environment, validated once. Nothing else here reads the environment."""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus import ConfigurationError

__all__ = ["DocumentsSettings", "load_settings"]


class DocumentsSettings(BaseSettings):
    """What can be set; each variable is the field's name in capitals with the prefix `DOCUMENTS_`."""

    model_config = SettingsConfigDict(env_prefix="DOCUMENTS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    folder: Path = Path("documents")
    """Where documents are written; made where it is missing, for this user alone."""
    clinic_name: str = Field(default="Example Clinic", min_length=1, max_length=80)
    """The letterhead's first line."""
    clinic_address: str = Field(default="", max_length=160)
    """The letterhead's second line: address, telephone, whatever belongs there."""
    page_size: Literal["a4", "letter"] = "a4"
    timezone: str = "UTC"
    """The zone of the dates on the pages, by its IANA name, such as `Europe/Athens`."""
    kept_notes: int = Field(default=10_000, gt=0)
    """Notes that the repository in memory keeps; the oldest go first."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("no IANA time zone; write one such as Europe/Athens")
        return name

    @property
    def zone(self) -> ZoneInfo:
        """The time zone itself."""
        return ZoneInfo(self.timezone)


def load_settings(**overrides: object) -> DocumentsSettings:
    """The settings of this process; `ConfigurationError` names the variables at fault, never their values."""
    try:
        return DocumentsSettings(**overrides)  # type: ignore[arg-type]  # pydantic validates what it is given
    except ValidationError as error:
        faults = "; ".join(f"DOCUMENTS_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"settings: {faults}") from None
