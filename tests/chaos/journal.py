"""Journals: files to which processes append one line for each act.

Each line is one `write` call to the kernel, so a SIGKILL loses no written line.
The module needs the standard library alone, because peers use it in their own environments.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["ACKED", "DELIVERED", "EFFECT", "FAILED", "SENT", "UNKNOWN", "Entry", "Journal", "Tail"]

SENT, ACKED, FAILED, UNKNOWN = "sent", "acked", "failed", "unknown"
"""Marks of a sender: a send begins, was accepted, surely failed, or has an unknown outcome."""
DELIVERED, EFFECT = "delivered", "effect"
"""Marks of a worker: a delivery has arrived, or the work was done."""


class Entry(NamedTuple):
    """A line of a journal."""

    mark: str
    number: int
    """Number from the message's body, because a fault could change the message id."""
    at: float
    """Seconds of the machine's monotonic clock, which all processes share."""
    process: int
    detail: str
    """Message id and attempt, or the reason why a send failed."""


class Journal:
    """The journal of one process; several processes may write to the same file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._process = os.getpid()

    def write(self, mark: str, number: int, detail: str = "") -> None:
        """Write one line; the kernel has it on return."""
        words = " ".join(detail.split())
        os.write(
            self._file,
            f"{mark}\t{number}\t{time.monotonic():.6f}\t{self._process}\t{words}\n".encode(),
        )


class Tail:
    """A reader of a growing journal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self.entries: list[Entry] = []
        """Entries so far, in the order in which the kernel received them."""

    def news(self) -> list[Entry]:
        """Return the entries since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as journal:
            journal.seek(self._at)
            data = journal.read()
        # The next call reads a line that is incomplete now.
        data = data[: data.rfind(b"\n") + 1]
        self._at += len(data)
        fresh = [_entry(line) for line in data.decode().splitlines()]
        self.entries += fresh
        return fresh


def _entry(line: str) -> Entry:
    mark, number, at, process, detail = line.split("\t")
    return Entry(mark, int(number), float(at), int(process), detail)
