"""A deployment for tests: services with keys and grants in files."""

from pathlib import Path
from typing import Any

from bus.security.key_directory import KeyDirectory

GRANTS = """
clients = ["office", "mail"]

[services.office]
call = ["ledger.add", "ledger.total", "ledger.close"]

[services.mail]
consume = ["ledger.closed"]

[services.ledger]
publish = ["ledger.closed"]
"""


class Deployment:
    """A directory with the keys of three services and one operator, and a grants file."""

    def __init__(self, directory: Path) -> None:
        self.keys = KeyDirectory(directory / "keys")
        for name in ("ledger", "office", "mail"):
            self.keys.new(name, f"{name}-1")
        self.keys.new("ida", "ida-1", role="operator")
        self.grants = directory / "grants.toml"
        self.grants.write_text(GRANTS)

    def of(self, service: str, **others: Any) -> dict[str, Any]:
        return {
            "auth": "on",
            "key": str(self.keys.key_file(service)),
            "jwks": str(self.keys.set_file),
            "grants": self.grants,
            **others,
        }
