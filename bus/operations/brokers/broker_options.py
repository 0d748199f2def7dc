"""The options of a broker that this program starts."""

import string
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["MAX_PASSWORD_LENGTH", "MAX_PORT", "MIN_PORT", "BrokerOptions", "is_password"]

MIN_PORT, MAX_PORT = 1024, 65535
"""Ports that a user other than root can open."""
MAX_PASSWORD_LENGTH = 200
PASSWORD_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")
"""Characters of a password that an URL, the broker and a shell can all represent."""


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


def is_password(text: str) -> bool:
    """Return True if a broker, a URL and a shell can represent the password."""
    return 0 < len(text) <= MAX_PASSWORD_LENGTH and PASSWORD_CHARACTERS.issuperset(text)
