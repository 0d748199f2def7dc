"""The options of a broker that this program starts."""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["BrokerOptions"]


@dataclass(frozen=True, kw_only=True)
class BrokerOptions:
    """Options of a broker that this program starts. None: the program chooses."""

    port: int | None = None
    """Port for AMQP."""
    management_port: int | None = None
    """Port of the management UI and API."""
    password: str | None = field(default=None, repr=False)
    """Password of the user `bus`."""
    keep: Path | None = None
    """Directory in which the broker's data stays after a stop. None: the data is removed."""

    def __bool__(self) -> bool:
        """Return True if an option is set."""
        return self != BrokerOptions()
