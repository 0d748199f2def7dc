"""Program of a rendering process.

The process renders one note at a time, and sends the file to the worker. A thread cannot replace
it: a thread cannot be ended, and its C code can hold the GIL and block the event loop.
"""

import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from bus import BusError, Internal, OutOfRange
from contracts.documentation.v1 import DocumentFormat, Note
from workers.documents.rendering import Rendered
from workers.processes.child import end_with_worker, ignore_stop_signals

__all__ = ["PART_BYTES", "Finished", "Limits", "Ready", "Renders", "serve"]

PART_BYTES = 65_536
"""Maximum bytes of a part in which the file is sent. The event loop reads a part at once."""
RESERVE_SECONDS = 5
"""Seconds after the limit in which the worker ends this process. Then the kernel ends it."""


class Renders(Protocol):
    """Template of documents, as a rendering process uses it."""

    def rendered(self, note: Note, format_: DocumentFormat) -> Rendered:
        """Render the note in this format."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one document."""

    max_seconds: float
    max_memory: int
    """Maximum bytes of the process's address space."""
    max_bytes: int
    """Maximum bytes of the file."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Message that the process can render."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Message that a document is rendered. The parts of the file follow."""

    size: int
    pages: int | None


def serve(connection: "Connection[Any, Any]", template: Renders, limits: Limits) -> None:
    """Render each note that the worker sends. This is the main function of the process."""
    ignore_stop_signals()
    end_with_worker()
    _limit_memory(limits.max_memory)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(Ready())
        while True:
            note, format_ = connection.recv()
            # The kernel ends this process by SIGALRM, even if C code holds the GIL and the worker
            # was killed.
            signal.setitimer(signal.ITIMER_REAL, limits.max_seconds + RESERVE_SECONDS)
            answer = _guarded(template, note, format_, limits)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if isinstance(answer, BusError):
                connection.send(answer)
                continue
            connection.send(Finished(size=len(answer.data), pages=answer.pages))
            for part in _parts(answer.data):
                connection.send_bytes(part)


def _limit_memory(max_bytes: int) -> None:
    # Some systems do not know this limit, or have a lower one.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def _guarded(
    template: Renders, note: Note, format_: DocumentFormat, limits: Limits
) -> Rendered | BusError:
    """Return the document, or the error. If the error is not a `BusError`, only its class is sent.

    Its text may contain words of the patient.
    """
    try:
        rendered = template.rendered(note, format_)
    except BusError as error:
        return error
    except MemoryError:
        problem = f"the document needs more than {limits.max_memory:,} bytes of memory"
        return OutOfRange(f"{problem}. Shorten the note, or raise DOCUMENTS_MAX_MEMORY.")
    except Exception as error:  # noqa: BLE001 - a process boundary
        return Internal(f"the renderer failed with {type(error).__name__}. Report it as a bug.")
    if len(rendered.data) > limits.max_bytes:
        problem = f"the document is larger than {limits.max_bytes:,} bytes"
        return OutOfRange(f"{problem}. Shorten the note, or raise DOCUMENTS_MAX_BYTES.")
    return rendered


def _parts(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES))
