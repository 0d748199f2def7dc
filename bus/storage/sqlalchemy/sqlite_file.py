"""The file of a store in SQLite: its creation, and the checks before it is opened."""

import os
import stat
from pathlib import Path

from bus.errors import ConfigurationError
from bus.messaging.store_address import StoreAddress

__all__ = ["check_sqlite_file", "create_sqlite_file", "has_file"]

UPGRADE = "Run `bus store upgrade` to create it"


def has_file(address: StoreAddress) -> bool:
    """Return True if the file exists."""
    return address.path is not None and Path(address.path).exists()


def create_sqlite_file(address: StoreAddress) -> bool:
    """Create an empty file that only its owner may access. Return False if it exists.

    Raises:
        ConfigurationError: The folder does not exist or cannot be written.
    """
    path = Path(address.path or "")
    try:
        # The mode is set at the creation: another user could open the file before a chmod.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigurationError(
            f"{_subject(path)} cannot be created: {error.strerror}. {_folder_advice(path)}"
        ) from None
    return True


def check_sqlite_file(address: StoreAddress) -> None:
    """Check that the file exists, that this process may write it, and that no other user may.

    Raises:
        ConfigurationError: The file cannot be used. The text has the command that corrects it.
    """
    path = Path(address.path or "")
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{_subject(path)} does not exist. {UPGRADE}, or correct the path."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{_subject(path)} cannot be opened: {error.strerror}. {_folder_advice(path)}"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{_subject(path)} is not a regular file. Name a regular file.")
    if status.st_mode & stat.S_IRWXO:
        raise ConfigurationError(
            f"{_subject(path)} has mode {stat.S_IMODE(status.st_mode):o}. Other users must not "
            f"access it, because it has messages: run `chmod o= {path}`."
        )
    # SQLite writes two further files beside it.
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise ConfigurationError(
            f"{_subject(path)} is read-only for this user. Make the file and its folder writable."
        )


def _subject(path: Path) -> str:
    relative = "" if path.is_absolute() else f" (a relative path, from {Path.cwd()})"
    return f"BUS_STORE: the file {path}{relative}"


def _folder_advice(path: Path) -> str:
    return f"Create the folder {path.parent.absolute()}, and make it writable for this user."
