"""Opening of a recording, which is a file on this machine or a download.

An error contains only the scheme and host of the URL, and neither path nor query. The path can
contain a patient's name, and errors are sent to other services and stored in dead letters. The
sender of the job knows the complete URL.
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
"""Pattern of a URL scheme (RFC 3986) with at least two characters."""

FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
"""Flags to open a folder of a path, and not a link.

With `O_PATH`, which only Linux has, a folder does not need to be readable to be passed through.
"""


class Sources:
    """Opener of recordings by path or URL."""

    def __init__(self, downloads: Downloads, *, max_bytes: int, roots: Sequence[Path] = ()) -> None:
        self._downloads = downloads
        self._max_bytes = max_bytes
        self._roots = roots

    @asynccontextmanager
    async def open(self, audio_url: str) -> AsyncIterator[BinaryIO]:
        """Yield the recording as an open file at its beginning, and close it when the block ends.

        The file has 1 to `max_bytes` bytes. Raise `InvalidArgument` if the URL or the file is
        invalid, and `OutOfRange` if the file is too large. Raise `NotFound` or `PermissionDenied`
        if the file cannot be read. Raise `Unavailable` or `ResourceExhausted` if a later attempt
        may succeed.
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
                problem = "audio_url is a file: URL with a host"
                raise InvalidArgument(f"{problem}. Write file:///path, or serve it by http(s).")
        problem = "audio_url has an unsupported scheme"
        raise InvalidArgument(f"{problem}. Send a path, or a file:, http: or https: URL.")

    async def _file(self, path: str) -> BinaryIO:
        # Open the file in a thread, because a network disk can block for a long time.
        return await asyncio.to_thread(open_file, path, self._roots)


def open_file(path: str, roots: Sequence[Path] = ()) -> BinaryIO:
    """Open a regular file.

    Symbolic links are followed first. If `roots` is not empty, the target of the links must be
    inside one of these directories. This also holds if another process replaces a folder of the
    path by a link during the call.
    """
    try:
        real = Path(os.path.realpath(path))
        return os.fdopen(_open_beneath(_root_of(real, roots), real), "rb")
    except OSError as error:
        raise _file_error(error) from error
    except RecursionError as error:
        # Python follows each link of a chain by a call. The kernel allows 40 links.
        raise _file_error(OSError(errno.ELOOP, os.strerror(errno.ELOOP))) from error
    except ValueError as error:
        raise InvalidArgument("audio_url has an invalid character. Correct the path.") from error


def _root_of(real: Path, roots: Sequence[Path]) -> Path:
    """Return the root that contains the file. Without `roots`, return the root of the system."""
    if not roots:
        return Path(real.anchor)
    for root in map(Path, map(os.path.realpath, roots)):
        if real.is_relative_to(root):
            return root
    raise PermissionDenied("the recording is outside TRANSCRIPTION_ROOTS. Move it there.")


def _open_beneath(root: Path, real: Path) -> int:
    """Open a regular file by walking from `root`, and return its descriptor.

    `real` has no links. A link on the path is therefore newer than the check of the path, and the
    walk does not follow it. Linux has `openat2` for this, but Python and macOS do not.
    """
    folder = os.open(root, FOLDER)
    try:
        *folders, name = real.relative_to(root).parts or (".",)
        for inner in folders:
            folder = _enter(folder, inner)
        return _open_regular(name, folder)
    finally:
        os.close(folder)


def _enter(folder: int, name: str) -> int:
    """Open a folder in an open folder, and close the outer one if this succeeds."""
    inner = os.open(name, FOLDER, dir_fd=folder)
    os.close(folder)
    return inner


def _open_regular(name: str, folder: int) -> int:
    # Check the type before opening the file. Opening a pipe waits for a writer, and opening a
    # device may have a side effect.
    _check_regular(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        # Check the type again, because another file may have the name now.
        _check_regular(os.fstat(file).st_mode)
    except BaseException:
        os.close(file)
        raise
    return file


def _split(audio_url: str) -> SplitResult:
    invalid = InvalidArgument("audio_url is not a valid URL. Write it as http(s)://host/path.")
    try:
        url = urlsplit(audio_url)
        complete = url.scheme == "file" or (url.hostname and url.port != 0)
    except ValueError as error:
        raise invalid from error
    if not complete:
        raise invalid
    return url


def _check_regular(mode: int) -> None:
    if stat.S_ISLNK(mode):  # a loop, or newer than the check of the path
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if stat.S_ISDIR(mode):
        raise InvalidArgument("the recording's path is a directory. Name a WAV file in it.")
    if not stat.S_ISREG(mode):
        raise InvalidArgument("the recording's path is a pipe, socket or device. Name a WAV file.")


def _file_error(error: OSError) -> BusError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            problem = "the recording's file does not exist"
            return NotFound(f"{problem}. Send an absolute path on the worker, or an http(s) URL.")
        case errno.EACCES | errno.EPERM:
            return PermissionDenied("the recording's file is not readable. Change its mode.")
        case errno.ELOOP | errno.ENAMETOOLONG:
            problem = "the recording's path is too long, or has too many links or a loop of links"
            return InvalidArgument(f"{problem}. Name the file itself.")
    name = errno.errorcode.get(error.errno or 0, "unknown errno")
    return Unavailable(f"the recording's file cannot be opened ({name}). Check the worker's disk.")
