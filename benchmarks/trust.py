"""Keys and grants for the row in which everything is signed and checked."""

import tempfile
from pathlib import Path

from bus.security.key_directory import KeyDirectory

__all__ = ["ROLES", "Trust"]

ROLES = {"ask": "asker", "consume": "sink", "subscribe": "many"}
"""Who the actors of these roles are; all others are the service itself."""
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
    """Ed25519 keys in a directory that goes with this object."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-keys-")
        self._keys = KeyDirectory(Path(self._directory.name))
        self._grants = Path(self._directory.name) / "grants.toml"
        self._grants.write_text(GRANTS, encoding="utf-8")
        for service in SERVICES:  # all before the first starts: who meets a key that is not in the set looks again, but not at once
            self._keys.new(service, f"{service}-1")

    def of(self, service: str) -> dict[str, str]:
        """The environment of one service."""
        return {"BUS_KEY": str(self._keys.key_file(service)), "BUS_JWKS": str(self._keys.set_file), "BUS_GRANTS": str(self._grants)}
