"""Folder for documents.

A document is stored completely or not at all. Only this user can read its file, and the file's name
reveals nothing.
"""

import errno
import os
import secrets
import time
import weakref
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
    """Folder in which the worker writes documents.

    The folder stays open. If it or a parent is moved or replaced, documents go neither into another
    folder nor to a path that does not lead to them.
    """

    def __init__(self, path: Path) -> None:
        """Create the folder if it is missing, and open it.

        Raise `ConfigurationError` if the folder is not writable.
        """
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # A thread that still writes keeps this object, and so the descriptor.
            weakref.finalize(self, os.close, self._folder)
            self._sweep()
            probe = _unfinished()
            self._write(probe, b"")
            os.unlink(probe, dir_fd=self._folder)
        except OSError as error:
            problem = f"DOCUMENTS_FOLDER: {self.path} is not writable ({_name(error)})"
            raise ConfigurationError(f"{problem}. Name a writable folder.") from error

    def write(self, name: str, data: bytes) -> Path:
        """Write a file with this name and content, and return its path.

        The method returns after the file is on the disk. It replaces an existing file atomically.
        Raise `ResourceExhausted` if the disk has no space. Raise `Unavailable` for any other error
        of the disk, and if the folder was moved or replaced.
        """
        unfinished = _unfinished()
        try:
            self._check_place()
            self._write(unfinished, data)
            os.replace(unfinished, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            # Without this, a power cut could remove the name after the job reported success.
            os.fsync(self._folder)
            self._check_place()
        except OSError as error:
            with suppress(OSError):
                os.unlink(unfinished, dir_fd=self._folder)
            raise _error(error) from error
        return self.path / name

    def _check_place(self) -> None:
        """Raise `Unavailable` if the path does not lead to the open folder."""
        try:
            is_same = os.path.samestat(self.path.stat(), os.fstat(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            is_same = False
        if not is_same:
            problem = "DOCUMENTS_FOLDER was moved or replaced"
            raise Unavailable(f"{problem}. Restore it, or restart the worker.")

    def _write(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=self._folder), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _sweep(self) -> None:
        """Remove unfinished files of killed processes, because they contain data of patients."""
        with os.scandir(self._folder) as entries:
            unfinished = [e for e in entries if e.name[0] == "." and e.name.endswith(UNFINISHED)]
        for entry in unfinished:
            with suppress(FileNotFoundError):  # another worker may remove the same file
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_AFTER:
                    os.unlink(entry.name, dir_fd=self._folder)


def _unfinished() -> str:
    return f".{secrets.token_hex(8)}{UNFINISHED}"


def _error(error: OSError) -> BusError:
    if error.errno in NO_ROOM:
        return ResourceExhausted("DOCUMENTS_FOLDER has no space for the document. Free some space.")
    return Unavailable(f"DOCUMENTS_FOLDER is not writable now ({_name(error)}). Check its disk.")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown errno")
