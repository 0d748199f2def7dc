"""What processes write down of what they do: a line an act, in a file that only grows.

One `write` call a line, straight to the kernel: a process that is killed by SIGKILL loses no line that it has written.
The standard library alone, because the peers write in it from environments of their own.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["ACKED", "DELIVERED", "EFFECT", "FAILED", "SENT", "UNKNOWN", "Entry", "Journal", "Tail"]

SENT, ACKED, FAILED, UNKNOWN = "sent", "acked", "failed", "unknown"
"""A sender's: it begins to send; the send was accepted, surely not sent, or nobody can say."""
DELIVERED, EFFECT = "delivered", "effect"
"""A worker's: a delivery has come; the work was done."""


class Entry(NamedTuple):
    """One act."""

    mark: str
    number: int
    """The message's, from its body: the ledger's own, and not the message id, which a fault could change."""
    at: float
    """Seconds of the machine's monotonic clock, which all its processes share."""
    process: int
    detail: str
    """A message id and attempt, or why a send failed."""


class Journal:
    """One process's view of a file that several may write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._process = os.getpid()

    def write(self, mark: str, number: int, detail: str = "") -> None:
        """Write one line; on return the kernel has it."""
        words = " ".join(detail.split())
        os.write(
            self._file,
            f"{mark}\t{number}\t{time.monotonic():.6f}\t{self._process}\t{words}\n".encode(),
        )


class Tail:
    """Reads a journal while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self.entries: list[Entry] = []
        """What was read so far, in the order in which the kernel took it."""

    def news(self) -> list[Entry]:
        """What was written since the last look."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as journal:
            journal.seek(self._at)
            data = journal.read()
        data = data[: data.rfind(b"\n") + 1]  # a line that is being written is read the next time
        self._at += len(data)
        fresh = [_entry(line) for line in data.decode().splitlines()]
        self.entries += fresh
        return fresh


def _entry(line: str) -> Entry:
    mark, number, at, process, detail = line.split("\t")
    return Entry(mark, int(number), float(at), int(process), detail)
