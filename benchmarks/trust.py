"""Keys and grants for the variant of the bus that signs and checks every message."""

import tempfile
from pathlib import Path

from bus.security.key_directory import KeyDirectory

__all__ = ["ROLES", "Trust"]

ROLES = {"ask": "asker", "consume": "sink", "subscribe": "many"}
"""The service names of the actors in these roles; all others use the measured service's name."""
FANOUT = ("signed-fanout1", "signed-fanout5", "signed-fanout20")
SERVICES = ("asker", "sink", "many", "signed-rpc", "signed-flow", *FANOUT)
GRANTS = """
clients = ["asker", "sink"]

[services.asker]
call = ["signed-rpc.echo"]

[services.sink]
consume = ["signed-flow.happened"]

[services.signed-flow]
publish = ["signed-flow.happened"]

[services.many]
consume = ["signed-fanout1.happened", "signed-fanout5.happened", "signed-fanout20.happened"]
""" + "".join(f'\n[services.{service}]\npublish = ["{service}.happened"]\n' for service in FANOUT)


class Trust:
    """Ed25519 keys in a temporary directory that is deleted with this object."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-keys-")
        self._keys = KeyDirectory(Path(self._directory.name))
        self._grants = Path(self._directory.name) / "grants.toml"
        self._grants.write_text(GRANTS, encoding="utf-8")
        # All keys exist before the first service starts: for an unknown key a service reads the set
        # again, but not at once.
        for service in SERVICES:
            self._keys.new(service, f"{service}-1")

    def of(self, service: str) -> dict[str, str]:
        """Return the environment variables of one service."""
        return {
            "BUS_KEY": str(self._keys.key_file(service)),
            "BUS_JWKS": str(self._keys.set_file),
            "BUS_GRANTS": str(self._grants),
        }
