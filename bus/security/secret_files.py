"""A file with the password, or the OAuth 2 token, that the broker is shown: others write it, again and again, and it is read each time."""

import logging
import os
import stat
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from bus.errors import ConfigurationError

__all__ = ["PasswordFile", "read_password", "read_private_file"]

log = logging.getLogger("bus.password")

MAX_KEY_FILE_BYTES = 1024 * 1024
"""Bytes; a set of some hundred private keys."""
MAX_PASSWORD_FILE_BYTES = 64 * 1024
"""Bytes; a token has some hundred to a few thousand."""


class PasswordFile:
    """What the file says now; and while nobody can tell, as halfway through a rotation, what it said last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._good: SecretStr | None = None
        self._down = False

    @classmethod
    def of(cls, path: Path | None) -> Self | None:
        """None without a path."""
        return None if path is None else cls(path)

    def read(self) -> SecretStr:
        """The password. `ConfigurationError` where there never was one."""
        try:
            self._good = read_password(self.path)
        except ConfigurationError as error:
            if self._good is None:
                raise
            if not self._down:
                log.warning(
                    "the password cannot be read again; the last good one stays",
                    extra={"why": str(error)},
                )
            self._down = True
        else:
            self._down = False
        return self._good


def read_password(path: Path) -> SecretStr:
    """The file's one line, without its end. `ConfigurationError` says what is wrong with it, and never shows what is in it.

    Others may read it, unlike a key: orchestrators mount tokens with mode 0644 into a container that holds nobody else. Who can write
    it decides as whom the service comes.
    """
    try:
        content = _content(path).decode()
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _wrong(path, "is no text") from None
    password = content.removesuffix("\n").removesuffix("\r")
    if not password:
        raise _wrong(path, "is empty")
    if len(content) > MAX_PASSWORD_FILE_BYTES or not password.isprintable():
        raise _wrong(path, f"is more than one line of at most {MAX_PASSWORD_FILE_BYTES} bytes")
    return SecretStr(password)


def _content(path: Path) -> bytes:
    """At most one byte too many. Without blocking: what is a pipe by mistake would be waited for."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise _wrong(path, "is no file that can be read again and again")
        if mode & stat.S_IWOTH:
            raise _wrong(
                path, f"may be written by everybody (mode {stat.S_IMODE(mode):o}); chmod o-w it"
            )
        return file.read(MAX_PASSWORD_FILE_BYTES + 1)


def _wrong(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(f"BUS_PASSWORD_FILE: {path} {what}")


def read_private_file(path: Path, variable: str) -> str:
    """Its text; `ConfigurationError` where others could read it, too, which names the path, unless that may be the key itself."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigurationError(
                    f"{variable}: {path} is open to others (mode {mode:o}); chmod 600 it, and mount secrets with mode 0400"
                )
            return file.read(MAX_KEY_FILE_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"{variable}: {_named(path)} cannot be read: {why}") from None


def _named(path: Path) -> str:
    """The path; but of a text that leads nowhere nobody can tell whether it is the key, written in a form that is not known here."""
    try:
        leads = path.exists() or (path.parent.name != "" and path.parent.is_dir())
    except OSError:  # too long for a path
        leads = False
    return str(path) if leads else "the path (not shown, since it may be the key itself)"
