"""Templates for rendering processes that do not end in time."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from contracts.documentation.v1 import DocumentFormat, Note
from workers.documents.renderer import Limits
from workers.documents.rendering import Rendered

STUCK, DEAD, HUNGRY, LARGE, FAULTY = "stuck", "dead", "hungry", "large", "faulty"
LIMITS = Limits(max_seconds=60, max_memory=1_000_000_000, max_bytes=1_000_000)


@dataclass(frozen=True)
class Acting:
    """Template that acts on the subjective section of a note, and else returns it."""

    begun: Path
    """File in which the process writes its id when it begins a note that never ends."""

    def rendered(self, note: Note, format_: DocumentFormat) -> Rendered:
        """Act on the subjective section."""
        text = note.content.subjective
        if text == STUCK:
            self.begun.write_text(str(os.getpid()), encoding="ascii")
            signal.pause()
        if text == DEAD:
            os.kill(os.getpid(), signal.SIGKILL)
        if text == HUNGRY:
            return Rendered(data=bytes(10**10), pages=None)
        if text == LARGE:
            return Rendered(data=bytes(2_000_000), pages=None)
        if text == FAULTY:
            raise ValueError(text)
        return Rendered(data=text.encode(), pages=os.getpid())
