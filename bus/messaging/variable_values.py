"""The rule by which the value of an environment variable is read."""

from collections.abc import Mapping

__all__ = ["environment_value", "strip_value"]

INVISIBLE = "\N{ZERO WIDTH NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{WORD JOINER}"
"""Characters that look like nothing, but that `str.strip` does not count as white space.

The first one is also the byte order mark of a file that Windows has written.
"""


def environment_value(environment: Mapping[str, str], name: str) -> str | None:
    """Return the value of a variable without the white space around it.

    If the variable is missing or has only white space, return None: Docker Compose sets an omitted
    variable to the empty string.
    """
    return strip_value(environment.get(name, "")) or None


def strip_value(value: str) -> str:
    """Return the value without white space and invisible characters at both ends."""
    before = None
    while value != before:
        before, value = value, value.strip().strip(INVISIBLE)
    return value
