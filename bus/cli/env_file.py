"""The file `.env` of the working directory, which only the command line reads.

Anyone may have left a file that is found. Therefore it only sets variables `BUS_…` that give no
rights. A file that `BUS_ENV_FILE` names can set the other ones, too. ADR 0027 has the reasons.
"""

import os
import stat
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote

from bus.cli.env_file_names import EnvFile, join_names
from bus.cli.env_file_parser import InvalidLines, parse_variables
from bus.cli.env_file_rules import PREFIX, SECRETS, VARIABLE, kind_of
from bus.cli.output import say
from bus.errors import ConfigurationError
from bus.messaging.variable_values import environment_value, strip_value
from bus.security.secret_files import GROUP_AND_OTHERS, read_trusted_file

__all__ = [
    "DEFAULT_FILE",
    "current_file",
    "describe_removal",
    "load_env_file",
    "read_and_announce",
]

DEFAULT_FILE = ".env"
NO_FILE = os.devnull
"""Value of `BUS_ENV_FILE` with which no file is read."""
MAX_FILE_BYTES = 128 * 1024
"""Maximum size of the file. Linux allows a variable the same size."""
QUIET = frozenset({"health", "run"})
"""Commands that do not print the names."""

_current: list[EnvFile] = []


def current_file() -> EnvFile | None:
    """Return the file that this process has read, or None."""
    return _current[0] if _current else None


def describe_removal(name: str) -> str:
    """Return the instruction to remove a variable from the file or the environment that sets it."""
    file = current_file()
    if file is not None and name in file.taken:
        return f"Remove {name} from {file.path}"
    return f"Unset {name}"


def load_env_file(environment: MutableMapping[str, str]) -> EnvFile | None:
    """Read the file `.env`, and set its variables in the environment.

    The environment wins over the file. Children of this process inherit the variables, and do not
    read a file again.

    Args:
        environment: The environment of this process.

    Returns:
        The names in the file, or None if there is no file.

    Raises:
        ConfigurationError: A line of the file is invalid, or the file that `BUS_ENV_FILE` names
            cannot be used. The error contains no text of the file.
    """
    _current.clear()
    named = environment_value(environment, VARIABLE)
    environment[VARIABLE] = NO_FILE
    if named == NO_FILE:
        return None
    found = _read_named(named, environment) if named else _read_found(environment)
    if found is not None:
        _current.append(found)
    return found


def read_and_announce(environment: MutableMapping[str, str], command: str | None) -> None:
    """Read the file as `load_env_file` does, and print the names on standard error.

    Args:
        environment: The environment of this process.
        command: The command that runs. `bus run` writes the names to its log instead, and
            `bus health` prints nothing, because an orchestrator runs it every few seconds.
    """
    file = load_env_file(environment)
    if file is None or command in QUIET:
        return
    for line in filter(None, (file.describe_taken(), *file.describe_problems())):
        say(line)


def _read_named(name: str, environment: MutableMapping[str, str]) -> EnvFile:
    """Read the file that `BUS_ENV_FILE` names.

    Raises:
        ConfigurationError: The path is relative, or the file cannot be used.
    """
    path, subject = Path(name), f"{VARIABLE}: {name}"
    if not path.is_absolute():
        # The variable stays in the shell. In the directory of another user, the same relative path
        # would name that user's file.
        raise ConfigurationError(
            f"{subject} is a relative path, which names a different file in each directory. "
            f'In the directory of the file, run `export {VARIABLE}="$PWD"/{quote(name)}`.'
        )
    _check_named(path, subject)
    text = read_trusted_file(path, subject, MAX_FILE_BYTES, accepts_pipe=True)
    return _apply(text, EnvFile(path=name, location=name, is_named=True), environment)


def _check_named(path: Path, subject: str) -> None:
    """Check that other users did not write the file, and cannot replace it. Accept a pipe.

    Raises:
        ConfigurationError: The file belongs to another user, or all users can replace it.
    """
    try:
        file, directory = path.stat(), path.parent.stat()
    except (OSError, ValueError):
        return  # The reader of the file reports the reason.
    if not stat.S_ISREG(file.st_mode):
        return
    if file.st_uid not in _trusted_owners():
        raise ConfigurationError(
            f"{subject} belongs to another user. Copy the file if you trust it, and name the copy."
        )
    if directory.st_mode & stat.S_IWOTH and not directory.st_mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"{subject} can be replaced, because all users can write to its directory. "
            f"Run `chmod o-w {quote(str(path.parent))}`."
        )


def _trusted_owners() -> set[int]:
    return {os.geteuid(), 0}


def _read_found(environment: MutableMapping[str, str]) -> EnvFile | None:
    path = Path(DEFAULT_FILE)
    try:
        mode = path.stat().st_mode
        file = EnvFile(path=DEFAULT_FILE, location=str(path.absolute()))
    except OSError:
        return None
    if stat.S_ISDIR(mode):  # a virtual environment may have this name
        return None
    try:
        _check_owners(path, file)
        text = read_trusted_file(path, "the file", MAX_FILE_BYTES)
    except ConfigurationError as error:
        return replace(file, problem=str(error))
    return _apply(text, file, environment)


def _check_owners(path: Path, file: EnvFile) -> None:
    """Check that other users cannot have created or replaced the file.

    Raises:
        ConfigurationError: The file, a link or the directory belongs to another user, or all users
            can write to the directory.
    """
    directory = path.absolute().parent
    for subject, found in (("the file", path.stat()), ("the link", path.lstat())):
        if found.st_uid not in _trusted_owners():
            raise ConfigurationError(
                f"{subject} belongs to another user. Copy it if you trust it, or set "
                f"{VARIABLE}={NO_FILE} to use no file."
            )
    if directory.stat().st_uid not in _trusted_owners():
        raise ConfigurationError(
            f"the directory belongs to another user. If you trust the file, run {file.naming}."
        )
    if directory.stat().st_mode & stat.S_IWOTH:
        raise ConfigurationError(
            "all users can write to its directory. Move the file to a directory of your own."
        )


def _apply(text: str, file: EnvFile, environment: MutableMapping[str, str]) -> EnvFile:
    """Set the variables of the file, and return the file with their names."""
    try:
        values = parse_variables(text, "" if file.is_named else PREFIX)
    except InvalidLines as error:
        lines = join_names([*map(str, error.numbers)])
        raise ConfigurationError(
            f"{file.path}: line {lines} is invalid. Write NAME=value, or set {VARIABLE}={NO_FILE} "
            "to use no file."
        ) from None
    kinds: dict[str, list[str]] = {}
    for name, value in values.items():
        kind = kind_of(name, value, environment, is_named=file.is_named)
        kinds.setdefault(kind, []).append(name)
    # The encoding of the environment can lack a character. `fsdecode` keeps its bytes in UTF-8.
    environment.update(
        {name: os.fsdecode(values[name].encode()) for name in kinds.get("taken", ())}
    )
    named = {kind: tuple(names) for kind, names in kinds.items()}
    # `kind_of` returns names of the tuple fields of `EnvFile`, which mypy cannot see.
    return replace(file, readable=_readable_secrets(file, values), **named)  # type: ignore[arg-type]


def _readable_secrets(file: EnvFile, values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of keys and secrets that are in a file with access for other users.

    A value that is the path of a key's file is not a secret.
    """
    try:
        mode = Path(file.path).stat().st_mode
    except OSError:  # the name of a pipe that is closed by now
        return ()
    if not file.is_named or not stat.S_ISREG(mode) or not mode & GROUP_AND_OTHERS:
        return ()
    return tuple(name for name in SECRETS if name in values and not _is_path(values[name]))


def _is_path(value: str) -> bool:
    with suppress(OSError, ValueError):  # a key can be too long for a path
        return Path(strip_value(value)).exists()
    return False
