"""Readers of secret files: private keys, passwords of broker users, and the broker password.

The broker password may be an OAuth 2 token. Another process rotates its file, so the file is read
again for every connection.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from bus.errors import ConfigurationError

__all__ = [
    "GROUP_AND_OTHERS",
    "PasswordFile",
    "read_password",
    "read_private_file",
    "read_secret_file",
]

log = logging.getLogger("bus.password")

MAX_KEY_FILE_BYTES = 1024 * 1024
"""Maximum size of a key file. It is sufficient for several hundred private keys."""
MAX_PASSWORD_FILE_BYTES = 64 * 1024
"""Maximum size of a password file. An OAuth 2 token has a few hundred to a few thousand bytes."""
GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Permission bits that a file with private keys or several passwords must not have."""


class PasswordFile:
    """The broker password in a file that another process rotates.

    If the file cannot be read, for example during a rotation, the last password stays in use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last_password: SecretStr | None = None
        self._unreadable = False

    @classmethod
    def of(cls, path: Path | None) -> Self | None:
        """Return the password file at `path`. If `path` is None, return None."""
        return None if path is None else cls(path)

    def read(self) -> SecretStr:
        """Return the password in the file. If the file cannot be read, return the last password.

        Raises:
            ConfigurationError: The file cannot be read, and no password was read before.
        """
        try:
            self._last_password = read_password(self.path)
        except ConfigurationError as error:
            if self._last_password is None:
                raise
            if not self._unreadable:
                log.warning(
                    "the password file cannot be read (%s); the last password stays in use",
                    error,
                    extra={"file": str(self.path), "why": str(error)},
                )
            self._unreadable = True
        else:
            self._unreadable = False
        return self._last_password


def read_password(path: Path) -> SecretStr:
    """Return the password in the file that `BUS_PASSWORD_FILE` names. Remove the line end.

    Other users may read this file, unlike a key file. Orchestrators mount tokens with mode 0644
    into a container that has no other users. Other users must not be able to write to this file,
    because the content of the file decides which broker user the service connects as.

    Args:
        path: The file. It must be a regular file, because it is read for every connection.

    Raises:
        ConfigurationError: The file cannot be read, other users can write to it, or it does not
            contain exactly one line. The error never contains the text of the file.
    """
    subject = f"BUS_PASSWORD_FILE: {path}"
    text = read_secret_file(
        path,
        subject,
        forbidden_mode=stat.S_IWOTH,
        correction=f"Other users must not write to it: run `chmod o-w {path}`.",
        max_bytes=MAX_PASSWORD_FILE_BYTES,
        read_repeatedly=True,
    )
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConfigurationError(f"{subject} is empty. Write the password as its only line.")
    if not password.isprintable():
        raise ConfigurationError(
            f"{subject} has more than one line, or characters that cannot be printed. "
            "Write the password as its only line."
        )
    return SecretStr(password)


def read_private_file(path: Path, variable: str) -> str:
    """Return the text of a file with private keys. Only the file's owner may have access to it.

    Args:
        path: The value of the setting. By mistake, the value can be the key instead of a path.
        variable: The name of the setting, for errors.

    Raises:
        ConfigurationError: The file cannot be read, or its mode gives access to group or others.
            The error contains the path only if the path or its folder exists.
    """
    return read_secret_file(
        path,
        f"{variable}: {_describe_path(path)}",
        forbidden_mode=GROUP_AND_OTHERS,
        correction=(
            f"Only its owner may access it: run `chmod 600 {path}`, "
            "and mount secrets with mode 0400."
        ),
        max_bytes=MAX_KEY_FILE_BYTES,
    )


def read_secret_file(
    path: Path,
    subject: str,
    *,
    forbidden_mode: int,
    correction: str,
    max_bytes: int,
    read_repeatedly: bool = False,
) -> str:
    """Return the text of a file that contains secrets.

    The mode is checked on the open file, so that no other file can replace it after the check.

    Args:
        path: The file.
        subject: Text at the start of each error message: the setting, the path, or setting and
            path.
        forbidden_mode: The permission bits that the file must not have.
        correction: A sentence that explains how to correct a forbidden mode. It is part of the
            error.
        max_bytes: The largest size of the file.
        read_repeatedly: True if the file must be a regular file, because it is read again later.
            If True, a named pipe is rejected, and the function does not wait for a writer.

    Raises:
        ConfigurationError: The file cannot be opened, has a forbidden mode, is too large, or is not
            UTF-8 text. The error never contains the text of the file.
    """

    def open_file(name: str, flags: int) -> int:
        return os.open(name, flags | (os.O_NONBLOCK if read_repeatedly else 0))

    try:
        with open(path, "rb", opener=open_file) as file:
            mode = os.fstat(file.fileno()).st_mode
            if read_repeatedly and not stat.S_ISREG(mode):
                raise ConfigurationError(f"{subject} is not a regular file. Name a regular file.")
            if mode & forbidden_mode:
                raise ConfigurationError(f"{subject} has mode {stat.S_IMODE(mode):o}. {correction}")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigurationError(f"{subject} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{subject} cannot be read: it contains a null byte") from None
    if len(content) > max_bytes:
        raise ConfigurationError(f"{subject} is larger than {max_bytes} bytes. Name another file.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{subject} is not UTF-8 text. Name another file.") from None


def _describe_path(path: Path) -> str:
    """Return the path. If neither the path nor its folder exists, return a neutral text.

    By mistake, the path can be a key. An error message must not contain a key.
    """
    try:
        exists = path.exists() or (path.parent.name != "" and path.parent.is_dir())
    except OSError:  # For example, a key is too long for a path.
        exists = False
    return str(path) if exists else "the path (not shown, because it may be the key itself)"
