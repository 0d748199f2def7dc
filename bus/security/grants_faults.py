"""The faults of a grants file, each with its line and its problem."""

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from bus.messaging.suggestions import did_you_mean

__all__ = ["GrantsFaults"]

MAX_FAULTS_SHOWN = 5
"""Maximum number of faults that an error lists. The error counts the remaining faults."""
MAX_NAME_LENGTH = 100
"""Maximum length of a faulty name for which an error suggests similar names."""
MAX_PROBLEM_LENGTH = 500
"""Maximum length of the text of a fault. A name in it can be as long as the file."""
MAX_FOUND_LENGTH = 1000
"""Maximum length of a faulty name that is searched for in the text."""
MAX_CANDIDATES = 1000
"""Maximum number of names among which an error looks for similar names."""


class GrantsFaults:
    """The faults of one grants file.

    The search for the line and for similar names takes time, and a running service reads the file
    in its event loop. So faults that the error does not list are only counted.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._faults: list[str] = []
        self._count = 0

    def __bool__(self) -> bool:
        """Return True if the file has a fault."""
        return self._count > 0

    def describe(self, path: Path) -> str:
        """Return the text of an error: the first faults with file and line, in one line."""
        more = self._count - MAX_FAULTS_SHOWN
        faults = "; ".join(f"{path}:{fault}" for fault in self._faults)
        return faults + (f"; and {more} more" if more > 0 else "")

    def add(self, table: str, name: str, problem: str, *, similar: Iterable[str] = ()) -> None:
        """Add a fault.

        Args:
            table: The table that contains the fault.
            name: The faulty name in the table.
            problem: The problem, which contains the name.
            similar: Valid names. The text suggests the names that are similar to `name`.
        """
        self._count += 1
        if self._count <= MAX_FAULTS_SHOWN:
            if len(problem) > MAX_PROBLEM_LENGTH:
                problem = f"{problem[:MAX_PROBLEM_LENGTH]}…"
            if len(name) <= MAX_NAME_LENGTH:
                problem += did_you_mean(name, islice(similar, MAX_CANDIDATES))
            line = self.find_line(table, name[:MAX_FOUND_LENGTH])
            self._faults.append(f"{line}: {problem}")

    def find_line(self, table: str, name: str) -> int:
        """Return the line number of a name in a table.

        tomllib returns no line numbers, so this method searches the text. If the name is not
        found, the result is the line of the table's header. TOML also allows tables without a
        `[header]` line. For these tables, the result is 1.
        """
        current, header_line = "", 1
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[([^\[\]]+)\]\s*(#|$)", line):
                current = re.sub(r"[\s\"']", "", header[1])
                if current == table:
                    header_line = number
                if current == f"{table}.{name}".lstrip("."):
                    return number
            elif current == table and _mentions(line, name):
                return number
        return header_line


def _mentions(line: str, name: str) -> bool:
    """Return True if the line contains the name in quotes or as a key, but not in a comment."""
    escaped = re.escape(name)
    return re.search(rf"^[^#]*[\"']{escaped}[\"']|^\s*{escaped}\s*[=.]", line) is not None
