"""The fault record: what a dead letter says of its failure. Written by the worker that gave it up, or read from what the broker noted."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from bus.messaging.envelope import Envelope
from bus.messaging.settlement import MoveToDeadLetters

__all__ = [
    "FIRST_FAILED",
    "PARKED",
    "REPLAYS",
    "FailedBy",
    "FaultRecord",
    "fault_headers",
    "read_record",
    "record_headers",
    "since_first_failure",
    "without_record",
]

Headers = dict[str, str | int]

PREFIX = "dead-"
FIRST_FAILED = "first-failed-at"
"""Milliseconds since the epoch; on every copy after the first failure, so that the last one can tell how long it has been going on."""
PARKED = "parked-at"
"""Milliseconds since the epoch; on a message that waited once for its key to become known."""
REPLAYS = "replays"
"""How often a message was taken out of the dead letters; each time is a life of its own."""
MAX_REASON_LENGTH = 1000
"""Characters of the reason: a header frame larger than the connection's frames costs the connection."""
MAX_NAME_LENGTH = 200
"""Characters of a class, host or version."""
UNKNOWN = "unknown"


def _trunkline() -> str:
    try:
        return version("trunkline")
    except PackageNotFoundError:  # a checkout that is not installed
        return UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedBy:
    """Who gave a message up."""

    service: str
    version: str | None = None
    """The service's own, where it is told."""
    host: str = field(default_factory=socket.gethostname)
    trunkline: str = field(default_factory=_trunkline)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """Why, when and where a message died; None is what nobody noted."""

    by: Literal["worker", "broker", "unknown"]
    """`broker`: it was delivered too often, or found its queue gone. `unknown`: somebody put it there by hand."""
    code: str
    """The error's code; of a broker's dead letter RabbitMQ's reason, such as `delivery_limit`."""
    error: str | None = None
    """The error's class."""
    reason: str | None = None
    """The class, and its text where that is safe."""
    attempts: int | None = None
    first_at: int | None = None
    """Milliseconds since the epoch: the first failure of this life."""
    last_at: int | None = None
    queue: str | None = None
    """The work queue."""
    service: str | None = None
    host: str | None = None
    version: str | None = None
    """The service's version."""
    trunkline: str | None = None


# --- writing -------------------------------------------------------------------------------------------------------


def since_first_failure(headers: Mapping[str, str | int], now: int) -> Headers:
    """The headers of a copy after a failure at `now` (ms): with the moment of the first one, which is this one where none is noted."""
    first = _moment(headers.get(FIRST_FAILED)) or now
    return {
        FIRST_FAILED: first,
        **{name: value for name, value in headers.items() if name != FIRST_FAILED},
    }


def fault_headers(
    envelope: Envelope,
    decision: MoveToDeadLetters,
    error: str,
    *,
    queue: str,
    now: int,
    worker: FailedBy,
) -> Headers:
    """All headers of a dead letter: the record, then its own. `error` is the error's class, `now` in ms.

    The record comes first, because who reads headers stops at a size; a record of another death is replaced as a whole.
    """
    record: Headers = {
        "dead-code": decision.code,
        "dead-error": error[:MAX_NAME_LENGTH],
        "dead-reason": decision.reason[:MAX_REASON_LENGTH].encode(errors="replace").decode(),
        "dead-attempts": envelope.attempt,
        "dead-at": now,
        "dead-queue": queue,
        "dead-by": worker.service,
        "dead-host": worker.host[:MAX_NAME_LENGTH],
        "dead-trunkline": worker.trunkline,
    }
    told: Headers = {"dead-version": worker.version[:MAX_NAME_LENGTH]} if worker.version else {}
    return record | told | since_first_failure(without_record(envelope.headers), now)


def record_headers(record: FaultRecord) -> Headers:
    """A broker's dead letter, told as a worker would."""
    told = {
        "dead-code": record.code,
        "dead-reason": record.reason,
        "dead-attempts": record.attempts,
        "dead-at": record.last_at,
        "dead-queue": record.queue,
        FIRST_FAILED: record.first_at,
    }
    return {name: value for name, value in told.items() if value is not None}


def without_record(headers: Mapping[str, str | int]) -> Headers:
    """The headers without a record of death."""
    return {name: value for name, value in headers.items() if not name.startswith(PREFIX)}


# --- reading -------------------------------------------------------------------------------------------------------


def read_record(
    envelope: Envelope, notes: Mapping[str, Any], *, work_queue: str | None
) -> FaultRecord:
    """What is known of a death. `notes` are the broker's headers, `work_queue` the queue whose dead letters it lies among.

    A worker's dead letter is a copy, and copies have no broker's notes: where there are some, the broker made it.
    Nothing in either is taken to be of the right type.
    """
    deaths = _deaths(notes)
    if deaths:
        return _by_broker(envelope, deaths, work_queue)
    return _by_worker(envelope, work_queue)


def _by_worker(envelope: Envelope, work_queue: str | None) -> FaultRecord:
    headers = envelope.headers
    code = _text(headers.get("dead-code"))
    return FaultRecord(
        by="worker" if code else "unknown",
        code=code or UNKNOWN,
        error=_text(headers.get("dead-error")),
        reason=_text(headers.get("dead-reason")),
        attempts=_moment(headers.get("dead-attempts")) or envelope.attempt,
        first_at=_moment(headers.get(FIRST_FAILED)),
        last_at=_moment(headers.get("dead-at")),
        queue=work_queue or _text(headers.get("dead-queue")),
        service=_text(headers.get("dead-by")),
        host=_text(headers.get("dead-host")),
        version=_text(headers.get("dead-version")),
        trunkline=_text(headers.get("dead-trunkline")),
    )


def _by_broker(
    envelope: Envelope, deaths: Sequence[Mapping[str, Any]], work_queue: str | None
) -> FaultRecord:
    last = deaths[0]
    reason, place = _text(last.get("reason")) or UNKNOWN, _text(last.get("queue")) or UNKNOWN
    at = _milliseconds(last.get("time"))
    if (
        work_queue is None
    ):  # it came back from a retry tier, whose routing key is its work queue's name, and that was gone
        text = f"its queue was gone when it came back from {place}"
        code, queue = "unroutable", _routing_key(last)
    else:
        text = f"the broker gave it up: {reason} in {place}"
        code, queue = reason, work_queue
    first = _moment(envelope.headers.get(FIRST_FAILED)) or at
    return FaultRecord(
        by="broker",
        code=code,
        reason=text,
        attempts=envelope.attempt,
        first_at=first,
        last_at=at,
        queue=queue,
    )


def _deaths(notes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The broker's records, newest first; where none is legible, the short form: `x-last-death-*` (since 3.13) or `x-first-death-*`."""
    deaths = notes.get("x-death")
    listed = (
        [each for each in deaths if isinstance(each, Mapping)] if isinstance(deaths, list) else []
    )
    if listed:
        return listed
    for which in ("last", "first"):
        short = {
            name: notes.get(f"x-{which}-death-{name}") for name in ("reason", "queue", "exchange")
        }
        if short["reason"]:
            return [short]
    return []


def _routing_key(death: Mapping[str, Any]) -> str | None:
    keys = death.get("routing-keys")
    return _text(keys[0]) if isinstance(keys, list) and keys else None


def _milliseconds(moment: object) -> int | None:
    """A broker's time, in seconds or as the library has it."""
    if isinstance(moment, datetime):
        return int(moment.timestamp() * 1000)
    seconds = _moment(moment)
    return seconds * 1000 if seconds else None


def _moment(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
