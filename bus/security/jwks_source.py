"""Functions that read the keys of the settings `BUS_KEY` and `BUS_JWKS`."""

import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from bus.errors import ConfigurationError
from bus.messaging.suggestions import did_you_mean
from bus.security.key_directory import KeyDirectory
from bus.security.keys import PrivateKey
from bus.security.private_keys import read_private
from bus.security.secret_files import read_private_file, read_trusted_file

__all__ = [
    "MAX_KEY_SET_BYTES",
    "PublicSource",
    "key_directory",
    "private_key_source",
    "public_key_source",
]

FETCH_TIMEOUT_SECONDS = 5.0
"""Maximum seconds of one download of the key set."""
MAX_KEY_SET_BYTES = 1024 * 1024
"""Maximum size of a key set."""

PublicSource = Callable[[], Awaitable[bytes]]
"""A function that returns the text of the public key set. It must limit its own time."""
PrivateSource = Callable[[], list[PrivateKey]]
"""A function that returns the private keys of this service."""


def private_key_source(
    setting: str, variable: str = "BUS_KEY", *, owner: str | None = None
) -> PrivateSource:
    """Return the function that reads the private keys from the value of a setting.

    Args:
        setting: A path, or the keys themselves (PEM, JSON Web Key, or JSON Web Key Set). If the
            path is a directory, the key file of `owner` in it is read, as `bus keys new` names it.
        variable: The name of the setting, for errors.
        owner: The name of the service. None: the path cannot be a directory.
    """
    if _is_key(setting):
        return lambda: read_private(setting)
    directory = None if owner is None else key_directory(setting)
    if directory is None or owner is None:
        path = Path(setting)
        return lambda: read_private(read_private_file(path, variable))

    def read() -> list[PrivateKey]:
        file = directory.key_file(owner)
        if not os.path.lexists(file) and os.access(directory.path, os.X_OK):
            raise ConfigurationError(f"{variable}: {_describe_missing(directory, owner)}")
        return read_private(read_private_file(file, variable))

    return read


def _describe_missing(directory: KeyDirectory, owner: str) -> str:
    """Return a text about a key file that the directory does not have."""
    owners = directory.owners()
    others = f"It has the keys of {', '.join(owners)}" if owners else "It has no keys"
    return (
        f"the directory {directory.path} has no file {owner}.key. "
        f"{others}{did_you_mean(owner, owners) or '.'} "
        f"Correct the name of the service, or create its key with `bus keys new {owner}`."
    )


def key_directory(setting: str) -> KeyDirectory | None:
    """Return the directory that a setting such as `BUS_KEY` names, or None if it names a key."""
    try:
        is_directory = not _is_key(setting) and Path(setting).is_dir()
    except (OSError, ValueError):  # By mistake, the path can be the key itself.
        is_directory = False
    return KeyDirectory(Path(setting)) if is_directory else None


def _is_key(setting: str) -> bool:
    return setting.lstrip().startswith(("{", "-----BEGIN"))


def public_key_source(setting: str, *, limit: float = FETCH_TIMEOUT_SECONDS) -> PublicSource:
    """Return the function that reads the key set of `BUS_JWKS`.

    Args:
        setting: A path or an https URL.
        limit: Maximum seconds of one download.

    Raises:
        ConfigurationError: The setting is a URL that is not https, that contains a user name, or
            that HTTP cannot request.
    """
    if "://" not in setting:
        path = Path(setting)

        async def read() -> bytes:
            # Reading a small local file takes less time than starting a thread.
            return read_trusted_file(path, f"BUS_JWKS: {path}", MAX_KEY_SET_BYTES).encode()

        return read
    if not _is_https(setting):
        raise ConfigurationError(
            "BUS_JWKS must be a path or an https URL. Write a path or https://host/path. "
            "With http, an attacker on the network could insert a key."
        )
    download = import_module("bus.security.key_set_download")
    key_set = download.KeySetUrl(setting, limit=limit, max_bytes=MAX_KEY_SET_BYTES)
    source: PublicSource = key_set.read
    return source


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # `parts.port` raises ValueError if the port is invalid.
        return bool(
            parts.scheme == "https" and parts.hostname and not parts.username and parts.port != 0
        )
    except ValueError:
        return False
