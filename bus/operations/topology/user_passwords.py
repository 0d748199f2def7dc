"""The passwords of RabbitMQ's users. A private file contains them. RabbitMQ stores their hashes."""

import base64
import hashlib
import secrets
import tomllib
from pathlib import Path

from bus.errors import ConfigurationError
from bus.security.secret_files import GROUP_AND_OTHERS, read_secret_file

__all__ = ["password_hash", "read_passwords"]

MAX_PASSWORDS_FILE_BYTES = 16 * 1024 * 1024
"""Maximum size of the file. This size is sufficient for some hundred thousand users."""
SALT_BYTES = 4
"""Length of the salt that RabbitMQ hashes together with a password."""


def read_passwords(path: Path) -> dict[str, str]:
    """Return the password of each user in a TOML file.

    Raises:
        ConfigurationError: The file cannot be read. Or the file mode gives access to group or
            others. Or a value in the file is not a password. The error never contains a password.
    """
    text = read_secret_file(
        path,
        str(path),
        forbidden_mode=GROUP_AND_OTHERS,
        correction=f"Only its owner may access it: run `chmod 600 {path}`.",
        max_bytes=MAX_PASSWORDS_FILE_BYTES,
        accepts_pipe=True,
    )
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    wrong = [name for name, value in content.items() if not isinstance(value, str) or not value]
    if wrong:
        raise ConfigurationError(
            f"{path}: {wrong[0]!r} must be a password in quotes. "
            f'Write {wrong[0]} = "…". If the name contains a dot, put the name in quotes too.'
        )
    return content


def password_hash(password: str, *, salt: bytes | None = None) -> str:
    """Return a password hash in RabbitMQ's format.

    The hash is base64 text. The decoded bytes are the salt and the SHA-256 digest. The digest is
    computed over the salt, followed by the password.
    """
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
