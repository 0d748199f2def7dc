"""The passwords of RabbitMQ's users, from a file that nobody else reads, and as RabbitMQ keeps them."""

import base64
import hashlib
import secrets
import stat
import tomllib
from pathlib import Path

from bus.errors import ConfigurationError

__all__ = ["password_hash", "read_passwords"]

SALT_BYTES = 4
"""Bytes that RabbitMQ hashes in front of a password."""


def read_passwords(path: Path) -> dict[str, str]:
    """By user, from a TOML file; `ConfigurationError` where others may read it, or it holds anything else. Never with what it holds."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(
                f"{path} holds passwords, and others may read it: chmod 600 {path}"
            )
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None
    wrong = [name for name, value in content.items() if not isinstance(value, str) or not value]
    if wrong:
        raise ConfigurationError(
            f'{path}: {wrong[0]!r} has to be a password in quotes: {wrong[0]} = "…"; a name with a dot stands in quotes'
        )
    return content


def password_hash(password: str, *, salt: bytes | None = None) -> str:
    """As RabbitMQ keeps it: base64 of a salt, and of the SHA-256 of the salt and the password."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
