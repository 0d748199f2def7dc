"""The folder where documents lie: each is there whole or not at all, for this user alone, under a name that says nothing."""

import errno
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from bus import BusError, ConfigurationError, ResourceExhausted, Unavailable

__all__ = ["DocumentFolder"]

UNFINISHED = ".part"
ABANDONED_AFTER = 3600.0
"""Seconds; a file is written in one of them, and another worker may be writing now."""
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DocumentFolder:
    """Writes documents."""

    def __init__(self, path: Path) -> None:
        """`path` is made where it is missing. Raises `ConfigurationError` where it cannot be written to."""
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            probe = self._unfinished()
            probe.touch(mode=0o600, exist_ok=False)
            probe.unlink()
        except OSError as error:
            text = (
                f"DOCUMENTS_FOLDER: documents cannot be written there ({_name(error)}); name a folder that the worker's user may write to"
            )
            raise ConfigurationError(text) from error

    def write(self, name: str, data: bytes) -> Path:
        """The path of the file with this name and content, once the disk has it. One that is there is replaced at once, as a whole.

        Raises `ResourceExhausted` where there is no room, `Unavailable` for what else the disk says.
        """
        path, unfinished = self.path / name, self._unfinished()
        try:
            _write(unfinished, data)
            unfinished.replace(path)
            _sync_folder(self.path)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise _error(error) from error
        return path

    def _unfinished(self) -> Path:
        return self.path / f".{secrets.token_hex(8)}{UNFINISHED}"

    def _sweep(self) -> None:
        """Remove what a killed process left half-written: it is a patient's."""
        for path in self.path.glob(f".*{UNFINISHED}"):
            with suppress(FileNotFoundError):  # another worker sweeps, too
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                    path.unlink()


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Else a power cut could forget the name, and a job that said it was done."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _error(error: OSError) -> BusError:
    if error.errno in NO_ROOM:
        return ResourceExhausted("there is no room for the document; make room in DOCUMENTS_FOLDER")
    return Unavailable(f"the document cannot be written now ({_name(error)}); check DOCUMENTS_FOLDER and its disk")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "no number")
