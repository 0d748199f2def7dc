"""Dead letters in a file: a line of JSON each, with everything that it takes to put them back. They hold payloads."""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bus.cli.dead.table import jsonable
from bus.errors import AlreadyExists, InvalidArgument, NotFound
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import record_headers
from bus.operations.dead_letters import DeadLetter, FaultRecord

__all__ = ["read", "write"]

KEPT = (
    *(
        "id",
        "type",
        "source",
        "timestamp",
        "correlation_id",
        "causation_id",
        "in_reply_to",
        "reply_to",
    ),
    *("traceparent", "tracestate", "expires", "attempt"),
)
PROOFS = {"proof": "proof", "counter_proof": "expiry_override"}
"""JSON keys of the signatures, and the attributes that hold them. A file from before signatures has none."""
"""The envelope's attributes that are in the file; headers and body have places of their own."""


def write(path: Path, letters: Iterable[DeadLetter]) -> None:
    """A new file that its owner alone may read; `AlreadyExists` where there is one, and nothing is left of one that fails."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists; name another file") from None
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for letter in letters:
                file.write(json.dumps(as_line(letter), separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def as_line(letter: DeadLetter) -> dict[str, Any]:
    """One letter."""
    return {
        "queue": letter.record.queue,
        "record": asdict(letter.record),
        "message": {
            name: getattr(letter.envelope, PROOFS.get(name, name)) for name in (*KEPT, *PROOFS)
        },
        "headers": jsonable(letter.headers),
        "broker": jsonable(letter.notes),
        "body": base64.b64encode(letter.envelope.body).decode(),
    }


def read(path: Path) -> Iterator[tuple[str, Envelope]]:
    """Work queue and message of each line; `InvalidArgument` names the first line that is none, and shows nothing of it."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield parsed(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {type(error).__name__}") from None


def parsed(line: str, where: str) -> tuple[str, Envelope]:
    """One line."""
    try:
        return restored(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidArgument(
            f"{where}: this is no dead letter that `bus dead export` wrote"
        ) from None


def restored(value: Any) -> tuple[str, Envelope]:
    """Work queue and message; any of four exceptions where something is not as it should be."""
    record, message = (
        FaultRecord(**value["record"]),
        {name: value["message"][name] for name in KEPT},
    )
    proofs: dict[str, Any] = {
        attribute: each
        for name, attribute in PROOFS.items()
        if isinstance(each := value["message"].get(name), str)
    }
    headers: dict[str, str | int] = {
        name: each for name, each in value["headers"].items() if isinstance(each, str | int)
    }
    queue, body = value["queue"], base64.b64decode(value["body"], validate=True)
    if not (
        isinstance(queue, str)
        and isinstance(message["id"], str)
        and isinstance(message["attempt"], int)
    ):
        raise TypeError("no dead letter")
    # The broker's notes cannot be sent again, so what they said becomes a record.
    told = record_headers(record) if record.by == "broker" else {}
    return queue, Envelope(**message, **proofs, role="job", headers=told | headers, body=body)
