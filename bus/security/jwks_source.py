"""Sources of keys: BUS_KEY and BUS_JWKS, read from a file or an https URL."""

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
from bus.security.keys import PrivateKey
from bus.security.private_keys import read_private
from bus.security.secret_files import read_private_file

__all__ = ["private_key_source", "public_key_source"]

FETCH_TIMEOUT_SECONDS = 5.0
"""Seconds for one look."""


MAX_KEY_SET_BYTES = 1024 * 1024
"""Bytes."""


PublicSource = Callable[[], Awaitable[bytes]]


PrivateSource = Callable[[], list[PrivateKey]]


def private_key_source(setting: str, variable: str = "BUS_KEY") -> PrivateSource:
    """What reads `BUS_KEY`, or another of its kind: a path, or the key itself (PEM, JSON Web Key, or a set of these)."""
    if setting.lstrip().startswith(("{", "-----BEGIN")):
        return lambda: read_private(setting)
    return lambda: read_private(read_private_file(Path(setting), variable))


def public_key_source(setting: str) -> PublicSource:
    """What reads `BUS_JWKS`: a path, or an https URL. `ConfigurationError` for any other URL."""
    if "://" not in setting:
        path = Path(setting)

        async def read() -> bytes:
            return _file(
                path
            )  # a few kilobytes of this machine: sooner read than a thread is asked

        return read
    parts = urlsplit(setting)
    if parts.scheme != "https" or not parts.hostname or parts.username:
        raise ConfigurationError(
            "BUS_JWKS: write a path, or https://host/path: over http anyone on the way could put in a key of his"
        )
    return lambda: asyncio.to_thread(_url, setting)


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        return _bounded(file)


def _url(url: str) -> bytes:
    opener = urllib.request.build_opener(
        _NoRedirect, urllib.request.HTTPSHandler(context=ssl.create_default_context())
    )
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - https alone, see above
    try:
        with opener.open(request, timeout=FETCH_TIMEOUT_SECONDS) as answer:
            return _bounded(answer)
    except HTTPError as error:
        with error:
            raise OSError(f"it was answered with {error.code}") from None


def _bounded(stream: IO[bytes]) -> bytes:
    text = stream.read(MAX_KEY_SET_BYTES + 1)
    if len(text) > MAX_KEY_SET_BYTES:
        raise ConfigurationError(f"BUS_JWKS: the key set is larger than {MAX_KEY_SET_BYTES} bytes")
    return text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keys come from where they are said to come from."""

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
