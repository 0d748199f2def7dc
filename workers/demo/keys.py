"""Keys that sign the messages of the demonstration's services.

The keys are in a directory that is removed at the end of the demonstration.
"""

from pathlib import Path
from typing import Any, Protocol

__all__ = ["DemoKeys"]

GRANTS = Path(__file__).parents[2] / "grants.toml"
SERVICES = ("demo", "transcription", "documentation")


class KeyDirectory(Protocol):
    """Directory for keys, with the methods of `bus.security.key_directory.KeyDirectory`."""

    @property
    def set_file(self) -> Path:
        """The path of the public key set."""
        ...

    def new(self, owner: str, kid: str) -> object:
        """Create the first key of `owner`, with the key id `kid`."""
        ...

    def key_file(self, owner: str) -> Path:
        """Return the path of the private key of `owner`."""
        ...


class DemoKeys:
    """Keys for all services of the demonstration, and the settings that use the keys."""

    def __init__(self, keys: KeyDirectory) -> None:
        self._keys = keys
        for service in SERVICES:
            self._keys.new(service, f"{service}-demo")

    def settings(self, service: str) -> dict[str, Any]:
        """Return the settings for a bus of this service in this process."""
        return {
            "auth": "on",
            "key": str(self._keys.key_file(service)),
            "jwks": str(self._keys.set_file),
            "grants": GRANTS,
        }

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment variables for a process of this service."""
        return {f"BUS_{name.upper()}": str(value) for name, value in self.settings(service).items()}
