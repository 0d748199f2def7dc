"""Folder for documents.

A document is stored completely or not at all. Only this user can read its file, and the file's name
reveals nothing.
"""

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
"""Seconds after which an unfinished file is removed.

A younger file is kept, because another worker may be writing it. This usually takes a second.
"""
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DocumentFolder:
    """Folder in which the worker writes documents."""

    def __init__(self, path: Path) -> None:
        """Create the folder if it is missing.

        Raise `ConfigurationError` if the folder is not writable.
        """
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            probe = self._unfinished()
            probe.touch(mode=0o600, exist_ok=False)
            probe.unlink()
        except OSError as error:
            problem = f"DOCUMENTS_FOLDER: {self.path} is not writable ({_name(error)})"
            raise ConfigurationError(f"{problem}. Name a writable folder.") from error

    def write(self, name: str, data: bytes) -> Path:
        """Write a file with this name and content, and return its path.

        The method returns after the file is on the disk. It replaces an existing file atomically.
        Raise `ResourceExhausted` if the disk has no space, and `Unavailable` for any other error of
        the disk.
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
        """Remove unfinished files of killed processes, because they contain data of patients."""
        for path in self.path.glob(f".*{UNFINISHED}"):
            with suppress(FileNotFoundError):  # another worker may remove the same file
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                    path.unlink()


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
    ) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Write the folder's entries to the disk.

    Without this, a power cut could remove the name of a file after its job reported success.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _error(error: OSError) -> BusError:
    if error.errno in NO_ROOM:
        return ResourceExhausted("DOCUMENTS_FOLDER has no space for the document. Free some space.")
    return Unavailable(f"DOCUMENTS_FOLDER is not writable now ({_name(error)}). Check its disk.")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown errno")
