"""Where a recording comes from: a file on this machine, or a download; either way it ends as an open file.

What goes wrong is told without the path, the query or any other part of the URL except scheme and host: errors cross the wire and are
kept in dead letters, and recordings are named after patients. Who sent the job knows what it named.
"""

import asyncio
import errno
import os
import re
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

from bus import BusError, InvalidArgument, NotFound, PermissionDenied, Unavailable
from workers.transcription.download import Downloads
from workers.transcription.limits import check_size

__all__ = ["Sources", "open_file"]

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""RFC 3986's, of two characters at least."""


class Sources:
    """Opens recordings by their URL."""

    def __init__(self, downloads: Downloads, *, max_bytes: int, roots: Sequence[Path] = ()) -> None:
        self._downloads = downloads
        self._max_bytes = max_bytes
        self._roots = roots

    @asynccontextmanager
    async def open(self, audio_url: str) -> AsyncIterator[BinaryIO]:
        """The recording as an open file at its beginning, 1 to `max_bytes` bytes long; closed on leaving.

        Raises `InvalidArgument` for what can never be a recording, `OutOfRange` over the limit, `NotFound`,
        `PermissionDenied`, and `Unavailable` for what may work later.
        """
        with await self._opened(audio_url) as file:
            check_size(os.fstat(file.fileno()).st_size, self._max_bytes)
            yield file

    async def _opened(self, audio_url: str) -> BinaryIO:
        if not SCHEME.match(audio_url):
            return await self._file(audio_url)
        url = _split(audio_url)
        match url.scheme:
            case "http" | "https":
                return await self._downloads.fetch(audio_url)
            case "file" if url.netloc in {"", "localhost"}:
                return await self._file(unquote(url.path))
            case "file":
                raise InvalidArgument("a file: URL with a host is another machine's; write file:///path, or serve it by http(s)")
        raise InvalidArgument("audio_url has a scheme that is not supported; send a path, file:, http: or https:")

    async def _file(self, path: str) -> BinaryIO:
        # In a thread: a file on a network disk can take long to open.
        return await asyncio.to_thread(open_file, path, self._roots)


def open_file(path: str, roots: Sequence[Path] = ()) -> BinaryIO:
    """A regular file, open; symbolic links are followed first and `roots` checked against where they lead."""
    try:
        real = Path(os.path.realpath(path))
        if roots and not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
            raise PermissionDenied("the recording is outside the directories that this worker may read (TRANSCRIPTION_ROOTS)")
        # Before opening: to open a pipe waits for its writer, and to open a device may do something.
        _check_regular(real.stat().st_mode)
        # What is a link now was none a moment ago.
        file = os.fdopen(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise _file_error(error) from error
    except ValueError as error:
        raise InvalidArgument("the recording's path holds a character that no path can") from error
    return file


def _split(audio_url: str) -> SplitResult:
    invalid = InvalidArgument("audio_url is not a valid URL; write it as http(s)://host/path")
    try:
        url = urlsplit(audio_url)
        complete = url.scheme == "file" or (url.hostname and url.port != 0)
    except ValueError as error:
        raise invalid from error
    if not complete:
        raise invalid
    return url


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise InvalidArgument("the recording's path is a directory; name a WAV file in it")
    if not stat.S_ISREG(mode):
        raise InvalidArgument("the recording's path is a pipe, socket or device; name a WAV file")


def _file_error(error: OSError) -> BusError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound("the worker has no such file; give an absolute path on the worker's machine, or an http(s) URL")
        case errno.EACCES | errno.EPERM:
            return PermissionDenied("the worker may not read the recording's file; let its user read it")
        case errno.ELOOP | errno.ENAMETOOLONG:
            return InvalidArgument("the recording's path is too long or a loop of links; name the file itself")
    name = errno.errorcode.get(error.errno or 0, "no number")
    return Unavailable(f"the recording's file cannot be opened now ({name}); check the worker's disk")
