"""The file `.env` of the working directory, which only the command line reads.

Anyone may have left a file that is found. Therefore it only sets variables `BUS_…` that give no
rights. A file that `BUS_ENV_FILE` names can set the other ones, too. ADR 0027 has the reasons.
"""

import os
import re
import stat
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bus.cli.env_file_parser import parse_variables
from bus.cli.output import say
from bus.errors import ConfigurationError
from bus.messaging.variable_values import environment_value, strip_value
from bus.security.secret_files import GROUP_AND_OTHERS, read_trusted_file

__all__ = [
    "DEFAULT_FILE",
    "PROTECTED",
    "VARIABLE",
    "EnvFile",
    "current_file",
    "describe_file",
    "load_env_file",
    "read_and_announce",
]

VARIABLE, DEFAULT_FILE = "BUS_ENV_FILE", ".env"
NO_FILE = os.devnull
"""Value of `BUS_ENV_FILE` with which no file is read."""
REMEDY = f"If you trust the file, run `export {VARIABLE}={DEFAULT_FILE}`."
MAX_FILE_BYTES = 1024 * 1024
QUIET = frozenset({"health", "run"})
"""Commands that do not print the names."""
PREFIX, TEST_PREFIX = "BUS_", "BUS_TEST_"
PROTECTED = frozenset(
    {
        "BUS_AUTH",
        "BUS_CA_FILE",
        "BUS_CLIENT_CERTIFICATE",
        "BUS_CLIENT_KEY",
        "BUS_DEBUG",
        "BUS_ENCRYPTION_KEYS",
        "BUS_GRANTS",
        "BUS_JWKS",
        "BUS_KEY",
        "BUS_OPERATOR_KEY",
        "BUS_PASSWORD_FILE",
    }
)
"""Variables that decide which peers this process trusts, and as which service it acts.

Only a named file sets them. `BUS_PASSWORD_FILE` is one of them, because its content is sent to the
host of `BUS_URL`.
"""
SECRETS = ("BUS_KEY", "BUS_OPERATOR_KEY", "BUS_ENCRYPTION_KEYS")
"""Variables that can have a key or a secret itself, or the path of its file."""
CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "BUS_URL": ("BUS_PASSWORD_FILE",),
    "BUS_MANAGEMENT_URL": ("BUS_URL", "BUS_PASSWORD_FILE"),
}
"""For each address, the variables with a password that is sent to it.

If the environment sets one of these passwords, a file that was found must not choose its receiver.
"""
NEVER = re.compile(
    r"PATH|HOME|SHELL|IFS|ENV|BASH_ENV|CDPATH|TMPDIR|LD_.*|DYLD_.*|PYTHON.*|SSL.*|OPENSSL.*"
    r"|RABBITMQ_HOME|ERL_.*|_.*|" + VARIABLE
)
"""Variables that decide which programs and libraries run. No file sets them."""


@dataclass(frozen=True, kw_only=True)
class EnvFile:
    """The names in a file `.env`, by the effect that they had. The values are not kept."""

    path: str
    is_named: bool = False
    """True if `BUS_ENV_FILE` names the file, False if the working directory has it."""
    taken: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    """Names that the environment already sets."""
    refused: tuple[str, ...] = ()
    """Names that only a named file sets."""
    forbidden: tuple[str, ...] = ()
    """Names that no file sets."""
    other: tuple[str, ...] = ()
    """Names of other programs in a file that was found."""
    readable: tuple[str, ...] = ()
    """Names of keys and secrets in the file that other users of this machine can read."""
    problem: str | None = None
    """Reason why a file that was found is not used."""

    def describe_taken(self) -> str | None:
        """Return a line with the names that were taken, or None."""
        return f"settings from {self.path}: {', '.join(self.taken)}" if self.taken else None

    def describe_problems(self) -> list[str]:
        """Return a line for each problem: names that were not taken, and readable secrets."""
        lines = []
        if self.problem:
            lines.append(f"{self.path} is not used: {self.problem}")
        if self.refused:
            lines.append(
                f"{self.path} does not set {', '.join(self.refused)}, because only a file that "
                f"you name may decide about trust and passwords. {REMEDY}"
            )
        if self.forbidden:
            lines.append(
                f"{self.path} does not set {', '.join(self.forbidden)}: no file may set a variable "
                "that decides which programs or files are used. Set it in the environment."
            )
        if self.readable:
            lines.append(
                f"{self.path}: other users can read {', '.join(self.readable)} in it. "
                f"Run `chmod 600 {self.path}`."
            )
        return lines

    def describe_other(self) -> str | None:
        """Return a line with the names of other programs that were not taken, or None."""
        if not self.other:
            return None
        return (
            f"{self.path} does not set {', '.join(self.other)}, because they are not settings of "
            f"the bus. If your handlers read them, run `export {VARIABLE}={DEFAULT_FILE}`."
        )


def describe_file(file: EnvFile | None) -> list[str]:
    """Return all lines about the file, for `bus doctor`."""
    if file is None:
        return ["none"]
    already = f"; already set: {', '.join(file.overridden)}" if file.overridden else ""
    return [
        f"{file.path} sets {', '.join(file.taken) or 'nothing'}{already}",
        *file.describe_problems(),
        *filter(None, (file.describe_other(),)),
    ]


_current: list[EnvFile] = []


def current_file() -> EnvFile | None:
    """Return the file that this process has read, or None."""
    return _current[0] if _current else None


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
    path = Path(name)
    subject = f"{VARIABLE}: {name}"
    text = read_trusted_file(path, subject, MAX_FILE_BYTES, accepts_pipe=True)
    return _apply(text, EnvFile(path=name, is_named=True), environment)


def _read_found(environment: MutableMapping[str, str]) -> EnvFile | None:
    path = Path(DEFAULT_FILE)
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):  # a virtual environment may have this name
        return None
    try:
        _check_owners(path)
        text = read_trusted_file(path, DEFAULT_FILE, MAX_FILE_BYTES)
    except ConfigurationError as error:
        return EnvFile(path=DEFAULT_FILE, problem=str(error).removeprefix(f"{DEFAULT_FILE} "))
    return _apply(text, EnvFile(path=DEFAULT_FILE), environment)


def _check_owners(path: Path) -> None:
    """Check that other users cannot have created or replaced the file.

    Raises:
        ConfigurationError: The file, a link or the directory belongs to another user, or all users
            can write to the directory.
    """
    directory = path.absolute().parent
    owners = {os.geteuid(), 0}
    for subject, found in (
        ("the file", path.stat()),
        ("the link", path.lstat()),
        ("its directory", directory.stat()),
    ):
        if found.st_uid not in owners:
            raise ConfigurationError(f"{subject} belongs to another user. {REMEDY}")
    if directory.stat().st_mode & stat.S_IWOTH:
        raise ConfigurationError(f"all users can write to its directory. {REMEDY}")


def _apply(text: str, file: EnvFile, environment: MutableMapping[str, str]) -> EnvFile:
    """Set the variables of the file, and return the file with their names."""
    try:
        values = parse_variables(text, "" if file.is_named else PREFIX)
    except ValueError as error:
        raise ConfigurationError(
            f"{file.path}: line {error} is invalid. Write NAME=value, or set {VARIABLE}={NO_FILE} "
            "to use no file."
        ) from None
    kinds: dict[str, list[str]] = {}
    for name in values:
        kinds.setdefault(_kind(name, file, environment), []).append(name)
    environment.update({name: values[name] for name in kinds.get("taken", ())})
    return EnvFile(
        path=file.path,
        is_named=file.is_named,
        readable=_readable_secrets(file, values),
        **{kind: tuple(names) for kind, names in kinds.items()},  # type: ignore[arg-type]
    )


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
    with suppress(OSError):  # a key can be too long for a path
        return Path(strip_value(value)).exists()
    return False


def _kind(name: str, file: EnvFile, environment: Mapping[str, str]) -> str:
    """Return the field of `EnvFile` that has the name."""
    is_own = name.upper().startswith(PREFIX)
    if not is_own and not file.is_named:
        return "other"
    if NEVER.fullmatch(name.upper() if is_own else name):
        return "forbidden"
    if environment_value(environment, name) if is_own else name in environment:
        return "overridden"
    return "taken" if file.is_named or _is_harmless(name.upper(), environment) else "refused"


def _is_harmless(name: str, environment: Mapping[str, str]) -> bool:
    """Return True if a file that was found may set this variable."""
    if name in PROTECTED or name.startswith(TEST_PREFIX):
        return False
    return not any(environment_value(environment, other) for other in CREDENTIALS.get(name, ()))
