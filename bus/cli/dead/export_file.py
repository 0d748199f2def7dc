"""Files of exported dead letters.

`bus dead export` writes a line of JSON for each dead letter, and `bus dead import` reads the lines.
The files include the payloads.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from bus.cli.dead.export_line import LineError, checked_line
from bus.cli.dead.table import jsonable
from bus.errors import AlreadyExists, InvalidArgument, NotFound
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import record_headers
from bus.messaging.topology.names import dead_letter_queue
from bus.operations.dead_letters import DeadLetter, FaultRecord

__all__ = ["ExportReader", "ExportedLetter", "write"]

FIELDS = (
    "id",
    "type",
    "source",
    "timestamp",
    "correlation_id",
    "causation_id",
    "in_reply_to",
    "reply_to",
    "traceparent",
    "tracestate",
    "expires",
    "attempt",
)
"""Envelope attributes in the JSON object `message` of each line.

Headers and body are not in this object. The line has separate keys for them.
"""
PROOFS = {"proof": "proof", "counter_proof": "expiry_override"}
"""JSON keys of the two signatures. Each value names the envelope attribute of the signature.

Files of older versions of the bus do not have these keys, because messages were not signed.
"""

NEW_FIELDS = frozenset({"where", "frames"})
"""Record fields that are not written to the file, because older versions reject them.

The headers of the dead letter contain the values.
"""
RECORD_FIELDS = frozenset(field.name for field in fields(FaultRecord)) - NEW_FIELDS
MAX_LINE_BYTES = 256 * 1024 * 1024
"""Maximum bytes of a line. It is enough for the largest message of RabbitMQ by default, in base64.

The line of an endless file, such as a device, ends there.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedLetter:
    """Dead letter of an export file."""

    line: int
    """Number of the line, from 1."""
    queue: str
    """Name of the dead-letter queue without `.dead`, which is the name of the work queue."""
    message: Envelope


def write(path: Path, letters: Iterable[DeadLetter]) -> None:
    """Write the dead letters to a new file that only the current user can read.

    If an error occurs, the incomplete file is removed.

    Raises:
        AlreadyExists: The file exists.
        InvalidArgument: The file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise AlreadyExists(f"file {path} already exists. Name another file.") from None
    except OSError as error:
        raise InvalidArgument(f"file {path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for letter in letters:
                file.write(json.dumps(to_json(letter), separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def to_json(letter: DeadLetter) -> dict[str, Any]:
    """Return the JSON object of a dead letter, which is one line of the file."""
    return {
        # The queue of unroutable messages has no work queue. The import puts a message back there.
        "queue": letter.dead_queue.removesuffix(dead_letter_queue("")),
        "record": {
            name: value for name, value in asdict(letter.record).items() if name not in NEW_FIELDS
        },
        "message": {
            name: getattr(letter.envelope, PROOFS.get(name, name)) for name in (*FIELDS, *PROOFS)
        },
        "headers": jsonable(letter.headers),
        "broker": jsonable(letter.notes),
        "body": base64.b64encode(letter.envelope.body).decode(),
    }


class ExportReader:
    """Reader of the lines of an export file. Use it in a `with` block.

    The file is checked as a whole before the first line is used. Then it is read a second time, so
    that a large file is never in memory. A pipe can be read only once, so its lines are kept.
    """

    def __init__(self, path: Path, *, first_line: int = 1) -> None:
        """Create a reader. Lines before `first_line` are skipped."""
        self._path = path
        self._first_line = first_line

    def __enter__(self) -> Self:
        """Open the file, and check all its lines.

        Raises:
            NotFound: The file does not exist.
            InvalidArgument: The file cannot be read, or a line is not a dead letter. The error
                names the number of the line. It does not contain the line, because a line holds a
                payload.
        """
        with self._report_unreadable():
            self._file = self._path.open("rb")
        try:
            with self._report_unreadable():
                self._kept = None if self._file.seekable() else [*self._read()]
                for _ in self._read() if self._kept is None else ():
                    pass
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[ExportedLetter]:
        """Yield the dead letters of the file.

        Raises:
            InvalidArgument: The file has changed since it was checked, and a line is invalid.
        """
        if self._kept is not None:
            yield from self._kept
            return
        with self._report_unreadable():
            self._file.seek(0)
            yield from self._read()

    def _read(self) -> Iterator[ExportedLetter]:
        number = 0
        while line := self._file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise self._error(number, f"has more than {MAX_LINE_BYTES} bytes")
            if number < self._first_line:
                continue
            try:
                queue, message = restore(checked_line(line, first=number == 1))
            except LineError as error:
                raise self._error(number, str(error)) from None
            yield ExportedLetter(line=number, queue=queue, message=message)
        if number < self._first_line - 1:
            raise InvalidArgument(f"file {self._path} has only {number} lines.")

    def _error(self, number: int, problem: str) -> InvalidArgument:
        return InvalidArgument(
            f"file {self._path}: line {number} {problem}. Correct or remove this line."
        )

    @contextmanager
    def _report_unreadable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"file {self._path} does not exist.") from None
        except OSError as error:
            raise InvalidArgument(f"file {self._path} cannot be read: {error.strerror}.") from None


def restore(value: Mapping[str, Any]) -> tuple[str, Envelope]:
    """Return the queue and the message of a JSON object that `checked_line` returned."""
    record, message = (
        # A later version can write fields that this version does not know.
        FaultRecord(
            **{name: field for name, field in value["record"].items() if name in RECORD_FIELDS}
        ),
        {name: value["message"][name] for name in FIELDS},
    )
    message["correlation_id"] = message["correlation_id"] or ""
    proofs = {attribute: value["message"].get(name) for name, attribute in PROOFS.items()}
    # If the broker dead-lettered the message, the reason is in the broker's own headers. An import
    # cannot send these headers, so it writes the reason into the headers of a failure record.
    fault = record_headers(record) if record.by == "broker" else {}
    body = base64.b64decode(value["body"])
    headers = fault | value["headers"]
    return value["queue"], Envelope(**message, **proofs, role="job", headers=headers, body=body)
