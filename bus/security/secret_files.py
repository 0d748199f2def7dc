"""Readers of the files that the settings name.

Secret files contain private keys, passwords of broker users, or the broker password. The broker
password may be an OAuth 2 token. Another process rotates its file, so the file is read again for
every connection. Trusted files decide whom a service trusts: the key set, the grants, and the
certificates.

All files are opened without waiting, so a named pipe or a device cannot stop a start.
"""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import SecretStr

from bus.errors import ConfigurationError
from bus.messaging.utf8_text import NotUtf8, decode_utf8

__all__ = [
    "GROUP_AND_OTHERS",
    "PasswordFile",
    "check_trusted_file",
    "read_password",
    "read_private_file",
    "read_secret_file",
    "read_trusted_file",
]

log = logging.getLogger("bus.password")

MAX_KEY_FILE_BYTES = 1024 * 1024
"""Maximum size of a key file. It is sufficient for several hundred private keys."""
MAX_PASSWORD_FILE_BYTES = 64 * 1024
"""Maximum size of a password file. An OAuth 2 token has a few hundred to a few thousand bytes."""
ROOT = 0
"""User id of the administrator."""
GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Permission bits that a file with private keys or several passwords must not have.

A group may read a file of root with private keys, unless the process is root.
"""


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


def read_password(path: Path, variable: str = "BUS_PASSWORD_FILE") -> SecretStr:
    """Return the password in the file that a setting names. Remove the line end.

    Other users may read this file, unlike a key file. Orchestrators mount tokens with mode 0644
    into a container that has no other users. Other users must not be able to write to this file,
    because the content of the file decides which broker user the service connects as.

    Args:
        path: The file. It must be a regular file, because it is read for every connection. By
            mistake, the value of the setting can be the password instead of a path.
        variable: The name of the setting, for errors.

    Raises:
        ConfigurationError: The file cannot be read, other users can write to it, or it does not
            contain exactly one line. The error never contains the text of the file. It contains
            the path only if the path or its folder exists.
    """
    subject = f"{variable}: {_describe_path(path, 'password')}"
    text = read_trusted_file(path, subject, MAX_PASSWORD_FILE_BYTES)
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

    The group may read a file of root, unless this process is root. Kubernetes mounts a secret in
    this form if the pod has `fsGroup`. It has no stricter form that a user other than root can
    read.

    Args:
        path: The value of the setting. By mistake, the value can be the key instead of a path.
        variable: The name of the setting, for errors.

    Raises:
        ConfigurationError: The file cannot be read, or its mode gives access to group or others.
            The error contains the path only if the path or its folder exists.
    """
    return read_secret_file(
        path,
        f"{variable}: {_describe_path(path, 'key')}",
        forbidden_mode=GROUP_AND_OTHERS,
        correction=(
            f"Only its owner may access it: run `chmod 600 {path}`. "
            "In Kubernetes, mount secrets with defaultMode 0400 and set fsGroup."
        ),
        max_bytes=MAX_KEY_FILE_BYTES,
    )


def read_trusted_file(
    path: Path, subject: str, max_bytes: int, *, accepts_pipe: bool = False
) -> str:
    """Return the text of a file that decides whom a service trusts, for example the grants.

    Other users may read the file, but must not be able to write to it. Links are followed, because
    Kubernetes mounts each file as a link.

    Args:
        path: The file.
        subject: Text at the start of each error message: the setting, the path, or both.
        max_bytes: The largest size of the file.
        accepts_pipe: True if the file is read only once, so that it can be a named pipe.

    Raises:
        ConfigurationError: The file cannot be read, is not a regular file, is too large, or other
            users can write to it.
    """
    return read_secret_file(
        path,
        subject,
        forbidden_mode=stat.S_IWOTH,
        correction=_forbid_writers(path),
        max_bytes=max_bytes,
        accepts_pipe=accepts_pipe,
    )


def check_trusted_file(path: Path, subject: str) -> None:
    """Check a file that another library reads, as `read_trusted_file` does.

    Raises:
        ConfigurationError: The file cannot be opened, is not a regular file, or other users can
            write to it.
    """
    with _opened(path, subject, accepts_pipe=False) as file:
        _check_mode(file, subject, stat.S_IWOTH, _forbid_writers(path))


def _forbid_writers(path: Path) -> str:
    return f"Other users must not write to it: run `chmod o-w {path}`."


def read_secret_file(
    path: Path,
    subject: str,
    *,
    forbidden_mode: int,
    correction: str,
    max_bytes: int,
    accepts_pipe: bool = False,
) -> str:
    """Return the text of a file that a setting names, without a byte order mark.

    The mode is checked on the open file, so that no other file can replace it after the check. The
    function does not wait for the writer of a named pipe, unless it accepts a pipe.

    Args:
        path: The file.
        subject: Text at the start of each error message: the setting, the path, or setting and
            path.
        forbidden_mode: The permission bits that the file must not have. The group may still read
            a file of root, unless this process is root.
        correction: A sentence that explains how to correct a forbidden mode. It is part of the
            error.
        max_bytes: The largest size of the file.
        accepts_pipe: True if the file is read only once, so that it can be a named pipe. The shell
            passes a pipe for `--passwords <(decrypt passwords.toml.age)`.

    Raises:
        ConfigurationError: The file cannot be opened, is not a regular file, has a forbidden mode,
            is too large, or is not UTF-8 text. The error never contains the text of the file.
    """
    with _opened(path, subject, accepts_pipe=accepts_pipe) as file:
        _check_mode(file, subject, forbidden_mode, correction)
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ConfigurationError(f"{subject} is larger than {max_bytes} bytes. Name another file.")
    try:
        return decode_utf8(content)
    except NotUtf8 as error:
        raise ConfigurationError(f"{subject} {error}, or name another file.") from None


@contextmanager
def _opened(path: Path, subject: str, *, accepts_pipe: bool) -> Iterator[BinaryIO]:
    """Open a regular file, or a pipe if it is accepted. Do not wait for the writer of a pipe."""

    def open_file(name: str, flags: int) -> int:
        return os.open(name, flags | (0 if accepts_pipe else os.O_NONBLOCK | os.O_NOCTTY))

    try:
        with open(path, "rb", opener=open_file) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not (stat.S_ISREG(mode) or (accepts_pipe and stat.S_ISFIFO(mode))):
                raise ConfigurationError(f"{subject} is not a regular file. Name a regular file.")
            yield file
    except OSError as error:
        raise ConfigurationError(f"{subject} cannot be read: {error.strerror}") from None
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{subject} cannot be read: the path contains a lone surrogate"
        ) from None
    except ValueError:
        raise ConfigurationError(
            f"{subject} cannot be read: the path contains a null byte"
        ) from None


def _check_mode(file: BinaryIO, subject: str, forbidden_mode: int, correction: str) -> None:
    status = os.fstat(file.fileno())
    # Kubernetes adds this bit for fsGroup. Only root can make root the owner of a file, so an
    # administrator chose the group. See docs/adr/0030.
    permitted = stat.S_IRGRP if status.st_uid == ROOT != os.geteuid() else 0
    if status.st_mode & forbidden_mode & ~permitted:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigurationError(f"{subject} has mode {mode:o}. {correction}")


def _describe_path(path: Path, secret: str) -> str:
    """Return the path. If neither the path nor its folder exists, return a neutral text.

    By mistake, the path can be the secret, a key or a password. An error message must not contain
    a secret.
    """
    try:
        exists = path.exists() or (path.parent.name != "" and path.parent.is_dir())
    except OSError:  # For example, a key is too long for a path.
        exists = False
    return str(path) if exists else f"the path (not shown, because it may be the {secret} itself)"
