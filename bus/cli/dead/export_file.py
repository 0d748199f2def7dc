"""Files of exported dead letters.

`bus dead export` writes a line of JSON for each dead letter, and `bus dead import` reads the lines.
The files include the payloads.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bus.cli.dead.table import jsonable
from bus.errors import AlreadyExists, InvalidArgument, NotFound
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import record_headers
from bus.operations.dead_letters import DeadLetter, FaultRecord

__all__ = ["read", "write"]

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
RECORD_FIELDS = frozenset(field.name for field in fields(FaultRecord))


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
        "queue": letter.record.queue,
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


def read(path: Path) -> Iterator[tuple[str, Envelope]]:
    """Read a file, and yield the work queue and the message of each line.

    Raises:
        NotFound: The file does not exist.
        InvalidArgument: The file cannot be read, or a line is not a dead letter. The error names
            the number of the line. It does not contain the line, because a line holds a payload.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield parse_line(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise NotFound(f"file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"file {path} cannot be read: {type(error).__name__}") from None


def parse_line(line: str, location: str) -> tuple[str, Envelope]:
    """Return the work queue and the message of one line.

    Args:
        line: Text of the line.
        location: Name of the file and number of the line, for the error.

    Raises:
        InvalidArgument: The line is not a dead letter.
    """
    try:
        return restore(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidArgument(
            f"{location}: the line is not a dead letter that `bus dead export` wrote"
        ) from None


def restore(value: Any) -> tuple[str, Envelope]:
    """Return the work queue and the message of a JSON object.

    An invalid object raises `ValueError`, `TypeError`, `KeyError` or `AttributeError`.
    """
    record, message = (
        # A later version can write fields that this version does not know.
        FaultRecord(
            **{name: field for name, field in value["record"].items() if name in RECORD_FIELDS}
        ),
        {name: value["message"][name] for name in FIELDS},
    )
    proofs: dict[str, Any] = {
        attribute: proof
        for name, attribute in PROOFS.items()
        if isinstance(proof := value["message"].get(name), str)
    }
    headers: dict[str, str | int] = {
        name: header for name, header in value["headers"].items() if isinstance(header, str | int)
    }
    queue, body = value["queue"], base64.b64decode(value["body"], validate=True)
    if not (
        isinstance(queue, str)
        and isinstance(message["id"], str)
        and isinstance(message["attempt"], int)
    ):
        raise TypeError("not a dead letter")
    # If the broker dead-lettered the message, the reason is in the broker's own headers. An import
    # cannot send these headers, so it writes the reason into the headers of a failure record.
    fault = record_headers(record) if record.by == "broker" else {}
    return queue, Envelope(**message, **proofs, role="job", headers=fault | headers, body=body)
