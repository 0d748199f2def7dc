"""Functions that read the keys of the settings `BUS_KEY` and `BUS_JWKS`."""

import asyncio
import ssl
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from typing_extensions import override

from bus.errors import ConfigurationError
from bus.security.key_directory import KeyDirectory
from bus.security.keys import PrivateKey
from bus.security.private_keys import read_private
from bus.security.secret_files import read_private_file

__all__ = ["private_key_source", "public_key_source"]

FETCH_TIMEOUT_SECONDS = 5.0
"""Maximum seconds to wait for the key set."""
MAX_KEY_SET_BYTES = 1024 * 1024
"""Maximum size of a key set."""

PublicSource = Callable[[], Awaitable[bytes]]
"""A function that returns the text of the public key set."""
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
    if setting.lstrip().startswith(("{", "-----BEGIN")):
        return lambda: read_private(setting)
    path = Path(setting)
    if owner is not None and _is_directory(path):
        path = KeyDirectory(path).key_file(owner)
    return lambda: read_private(read_private_file(path, variable))


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # By mistake, the path can be the key itself.
        return False


def public_key_source(setting: str) -> PublicSource:
    """Return the function that reads the key set of `BUS_JWKS`.

    Args:
        setting: A path or an https URL.

    Raises:
        ConfigurationError: The setting is a URL that is not https, or that contains a user name.
    """
    if "://" not in setting:
        path = Path(setting)

        async def read() -> bytes:
            # Reading a small local file takes less time than starting a thread.
            return _read_file(path)

        return read
    parts = urlsplit(setting)
    if parts.scheme != "https" or not parts.hostname or parts.username:
        raise ConfigurationError(
            "BUS_JWKS must be a path or an https URL. Write a path or https://host/path. "
            "With http, an attacker on the network could insert a key."
        )
    return lambda: asyncio.to_thread(_fetch_url, setting)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return _read_bounded(file)


def _fetch_url(url: str) -> bytes:
    opener = urllib.request.build_opener(
        _NoRedirect, urllib.request.HTTPSHandler(context=ssl.create_default_context())
    )
    # `public_key_source` accepts only https URLs.
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    try:
        with opener.open(request, timeout=FETCH_TIMEOUT_SECONDS) as response:
            return _read_bounded(response)
    except HTTPError as error:
        with error:
            raise OSError(f"the server answered with status {error.code}") from None


def _read_bounded(stream: IO[bytes]) -> bytes:
    text = stream.read(MAX_KEY_SET_BYTES + 1)
    if len(text) > MAX_KEY_SET_BYTES:
        raise ConfigurationError(
            f"BUS_JWKS: the key set is larger than {MAX_KEY_SET_BYTES} bytes. Remove unused keys."
        )
    return text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A handler that does not follow redirects. Only the configured host may supply keys."""

    @override
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Any:
        return None
