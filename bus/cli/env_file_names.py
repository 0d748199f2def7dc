"""The names in a file `.env`, and the lines that tell a user about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from bus.cli.env_file_rules import VARIABLE

__all__ = ["EnvFile", "describe_file", "join_names"]

MAX_NAMES = 5
"""Maximum number of names in a line."""
MAX_NAME_CHARACTERS = 60
"""Maximum length of a name in a line."""


@dataclass(frozen=True, kw_only=True)
class EnvFile:
    """The names in a file `.env`, by the effect that they had. The values are not kept."""

    path: str
    location: str
    """Absolute path of the file."""
    is_named: bool = False
    """True if `BUS_ENV_FILE` names the file, False if the working directory has it."""
    taken: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    """Names that the environment already sets."""
    refused: tuple[str, ...] = ()
    """Names that only a named file sets."""
    forbidden: tuple[str, ...] = ()
    """Names that no file sets."""
    receivers: tuple[str, ...] = ()
    """Names of addresses that would receive a password of the environment."""
    other: tuple[str, ...] = ()
    """Names of other programs in a file that was found."""
    readable: tuple[str, ...] = ()
    """Names of keys and secrets in the file that other users of this machine can read."""
    problem: str | None = None
    """Reason why a file that was found is not used."""

    @property
    def naming(self) -> str:
        """Command that names the file. The path is absolute: the shell may change its directory."""
        return f"`export {VARIABLE}={quote(self.location)}`"

    def describe_taken(self) -> str | None:
        """Return a line with the names that were taken, or None."""
        return f"settings from {self.path}: {join_names(self.taken)}" if self.taken else None

    def describe_problems(self) -> list[str]:
        """Return a line for each problem: names that were not taken, and readable secrets."""
        lines = []
        if self.problem:
            lines.append(f"{self.path} is not used: {self.problem}")
        if self.refused:
            lines.append(
                f"{self.path} does not set {join_names(self.refused)}: only a file that you name "
                f"may do so. If you trust the file, run {self.naming}."
            )
        if self.receivers:
            lines.append(
                f"{self.path} does not set {join_names(self.receivers)}, because a password of the "
                "environment would be sent to this address. Set the address in the environment, "
                "too."
            )
        if self.forbidden:
            lines.append(
                f"{self.path} does not set {join_names(self.forbidden)}: only the environment "
                "chooses programs, libraries and their files. Set it there."
            )
        if self.readable:
            lines.append(
                f"{self.path}: other users can read {join_names(self.readable)} in it. "
                f"Run `chmod 600 {quote(self.path)}`."
            )
        return lines

    def describe_other(self) -> str | None:
        """Return a line with the names of other programs that were not taken, or None."""
        if not self.other:
            return None
        reason, them = ("they are not settings", "them")
        if len(self.other) == 1:
            reason, them = ("it is not a setting", "it")
        return (
            f"{self.path} does not set {join_names(self.other)}, because {reason} of the bus. "
            f"If your handlers read {them}, run {self.naming}."
        )


def describe_file(file: EnvFile | None) -> list[str]:
    """Return all lines about the file, for `bus doctor`."""
    if file is None:
        return ["none"]
    already = f"; already set: {join_names(file.overridden)}" if file.overridden else ""
    return [
        f"{file.path} sets {join_names(file.taken) or 'nothing'}{already}",
        *file.describe_problems(),
        *filter(None, (file.describe_other(),)),
    ]


def join_names(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    shown = [
        name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}…"
        for name in names[:MAX_NAMES]
    ]
    more = len(names) - MAX_NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
