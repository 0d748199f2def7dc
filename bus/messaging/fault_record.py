"""Fault record: the cause of a dead letter.

A worker that dead-letters a message writes the record to headers of the dead letter. If the broker
dead-letters a message, the record is derived from the broker's `x-death` headers.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from bus.errors import error_name
from bus.messaging.envelope import MAX_TEXT_LENGTH, Envelope
from bus.messaging.failure_location import failure_frames, failure_location
from bus.messaging.settlement import MoveToDeadLetters
from bus.messaging.trace_context import ATTEMPT_TRACEPARENT

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
    "with_attempt",
    "without_record",
]

Headers = dict[str, str | int]

PREFIX = "dead-"
FIRST_FAILED = "first-failed-at"
"""Header with the time of the first failure, in milliseconds since the epoch.

A message keeps this header in all later attempts, because `RetryPolicy.total_time` is counted from
this time.
"""
PARKED = "parked-at"
"""Header with the time when a message began to wait for its signing key.

The time is in milliseconds since the epoch. A message waits only once for an unknown key.
"""
REPLAYS = "replays"
"""Header with the number of replays. After each replay, a message starts again at attempt 1."""
MAX_REASON_LENGTH = 1000
"""Maximum number of characters in the reason.

A longer reason could make the header frame larger than the negotiated size. The broker closes a
connection that sends a larger frame.
"""
MAX_NAME_LENGTH = 200
"""Maximum number of characters in a class name, a host name or a version."""
MAX_FRAMES_LENGTH = 1500
"""Maximum number of characters in the frames. The outermost frames are left out first."""
MAX_COUNT = 2**53
"""Limit of each time and count. A sender can write larger numbers, which have no meaning."""
UNKNOWN = "unknown"
REJECTED = "rejected"
"""Reason of the broker for a message that a consumer rejected (`basic.reject`)."""


def _trunkline_version() -> str:
    try:
        return version("trunkline")
    except PackageNotFoundError:  # the code runs from a checkout, and the package is not installed
        return UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedBy:
    """Worker that dead-lettered a message."""

    service: str
    version: str | None = None
    """Version of the service, if `BUS_SERVICE_VERSION` is set."""
    host: str = field(default_factory=socket.gethostname)
    trunkline: str = field(default_factory=_trunkline_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """Cause, time and place of a dead letter. None means that a value is unknown."""

    by: Literal["worker", "broker", "unknown"]
    """Origin of the dead letter.

    It is `worker` if a worker dead-lettered the message. It is `broker` if the broker dead-lettered
    the message. The broker does so after too many deliveries, or if the work queue did not exist.
    It also does so if a worker rejected the message because it is too large.
    It is `unknown` if the message has no record, because it was put into the dead-letter queue
    manually.
    """
    code: str
    """Code of the error, or the broker's reason, such as `delivery_limit`."""
    error: str | None = None
    """Class of the error."""
    reason: str | None = None
    """Class of the error. For a `BusError` other than `Internal`, the error's text follows."""
    where: str | None = None
    """Place in the service's code where the error was raised, as `file:line function`."""
    frames: tuple[str, ...] = ()
    """Frames of the error as `file:line function`, the outermost first."""
    attempts: int | None = None
    """Number of attempts."""
    first_at: int | None = None
    """Time of the first failure since the last replay, in milliseconds since the epoch."""
    last_at: int | None = None
    """Time of dead-lettering, in milliseconds since the epoch."""
    queue: str | None = None
    """Work queue of the message."""
    service: str | None = None
    """Service that dead-lettered the message."""
    host: str | None = None
    """Host of the worker that dead-lettered the message."""
    version: str | None = None
    """Version of the service that dead-lettered the message."""
    trunkline: str | None = None
    """Version of trunkline in the worker that dead-lettered the message."""


# --- Writing ---


def since_first_failure(headers: Mapping[str, str | int], now: int) -> Headers:
    """Return the headers of a failed message. Add the time of its first failure if it is missing.

    Args:
        headers: Headers of the message. If they lack the time of the first failure, this failure is
            the first.
        now: Time of this failure, in milliseconds since the epoch.
    """
    first = _positive_int(headers.get(FIRST_FAILED)) or now
    return {
        FIRST_FAILED: first,
        **{name: value for name, value in headers.items() if name != FIRST_FAILED},
    }


def with_attempt(headers: Headers, traceparent: str | None) -> Headers:
    """Return the headers of a copy, with the span of the attempt that failed.

    Args:
        headers: Headers of the copy.
        traceparent: Span of the attempt. None if no span was recorded.
    """
    if traceparent is None:
        return headers
    others = {name: value for name, value in headers.items() if name != ATTEMPT_TRACEPARENT}
    return {ATTEMPT_TRACEPARENT: traceparent, **others}


def fault_headers(
    envelope: Envelope,
    decision: MoveToDeadLetters,
    error: BaseException,
    *,
    queue: str,
    now: int,
    worker: FailedBy,
) -> Headers:
    """Return all headers of a dead letter: first the record, then the message's own headers.

    The record is first, because a reader keeps only the first 32 KiB of headers. The record of an
    earlier dead-lettering is removed.

    Args:
        envelope: Message to dead-letter.
        decision: Decision with the code and reason.
        error: Error of the last attempt.
        queue: Work queue of the message.
        now: Time of dead-lettering, in milliseconds since the epoch.
        worker: Service that dead-letters the message.
    """
    record: Headers = {
        "dead-code": decision.code,
        "dead-error": error_name(error)[:MAX_NAME_LENGTH],
        "dead-reason": decision.reason[:MAX_REASON_LENGTH].encode(errors="replace").decode(),
        "dead-attempts": envelope.attempt,
        "dead-at": now,
        "dead-queue": queue,
        "dead-by": worker.service,
        "dead-host": worker.host[:MAX_NAME_LENGTH],
        "dead-trunkline": worker.trunkline,
    }
    if worker.version:
        record["dead-version"] = worker.version[:MAX_NAME_LENGTH]
    return (
        record | _place_headers(error) | since_first_failure(without_record(envelope.headers), now)
    )


def _place_headers(error: BaseException) -> Headers:
    """Return the headers with the location and the frames of an error that was raised."""
    where, frames = failure_location(error), failure_frames(error)
    if where is None:
        return {}
    while len("\n".join(frames)) > MAX_FRAMES_LENGTH:
        frames = frames[1:]
    return {"dead-where": where, "dead-frames": "\n".join(frames)}


def record_headers(record: FaultRecord) -> Headers:
    """Return a record as headers.

    If the broker dead-lettered a message, the message does not have these headers.
    """
    headers = {
        "dead-code": record.code,
        "dead-reason": record.reason,
        "dead-attempts": record.attempts,
        "dead-at": record.last_at,
        "dead-queue": record.queue,
        FIRST_FAILED: record.first_at,
    }
    return {name: value for name, value in headers.items() if value is not None}


def without_record(headers: Mapping[str, str | int]) -> Headers:
    """Return all headers except those of a fault record."""
    return {name: value for name, value in headers.items() if not name.startswith(PREFIX)}


# --- Reading ---


def read_record(
    envelope: Envelope, notes: Mapping[str, Any], *, work_queue: str | None
) -> FaultRecord:
    """Return the fault record of a dead letter.

    If the dead letter has `x-death` headers, the broker dead-lettered it. A worker that
    dead-letters a message sends a copy without the broker's headers. The type of each header is
    checked, because any client can write headers. A long text is cut. A time or a count that is not
    below `MAX_COUNT` is unknown.

    Args:
        envelope: Dead letter.
        notes: Headers of the broker, such as `x-death`.
        work_queue: Work queue of the dead-letter queue. None for the queue of unroutable messages.
            It contains messages whose work queue did not exist when a retry tier returned them.
    """
    deaths = _read_deaths(notes)
    if deaths:
        return _read_broker_record(envelope, deaths, work_queue)
    return _read_worker_record(envelope, work_queue)


def _read_worker_record(envelope: Envelope, work_queue: str | None) -> FaultRecord:
    headers = envelope.headers
    code = _text(headers.get("dead-code"))
    return FaultRecord(
        by="worker" if code else "unknown",
        code=code or UNKNOWN,
        error=_text(headers.get("dead-error")),
        reason=_text(headers.get("dead-reason")),
        where=_text(headers.get("dead-where")),
        frames=tuple((_text(headers.get("dead-frames"), MAX_FRAMES_LENGTH) or "").splitlines()),
        attempts=_positive_int(headers.get("dead-attempts")) or envelope.attempt,
        first_at=_positive_int(headers.get(FIRST_FAILED)),
        last_at=_positive_int(headers.get("dead-at")),
        queue=work_queue or _text(headers.get("dead-queue")),
        service=_text(headers.get("dead-by")),
        host=_text(headers.get("dead-host")),
        version=_text(headers.get("dead-version")),
        trunkline=_text(headers.get("dead-trunkline")),
    )


def _read_broker_record(
    envelope: Envelope, deaths: Sequence[Mapping[str, Any]], work_queue: str | None
) -> FaultRecord:
    last = deaths[0]
    reason, source = _text(last.get("reason")) or UNKNOWN, _text(last.get("queue")) or UNKNOWN
    at = _milliseconds(last.get("time"))
    if work_queue is None:
        # The message returned from a retry tier. Its routing key is the name of its work queue.
        text = f"the work queue did not exist when the message returned from {source}"
        code, queue = "unroutable", _routing_key(last)
    else:
        text = f"the broker dead-lettered the message: {reason} in {source}"
        if reason == REJECTED:
            text = (
                f"a worker rejected the message in {source}. A worker of the bus rejects only a "
                f"message that is larger than its BUS_MAX_MESSAGE, and this message has "
                f"{len(envelope.body)} bytes"
            )
        code, queue = reason, work_queue
    first = _positive_int(envelope.headers.get(FIRST_FAILED)) or at
    return FaultRecord(
        by="broker",
        code=code,
        reason=text[:MAX_TEXT_LENGTH],
        attempts=envelope.attempt,
        first_at=first,
        last_at=at,
        queue=queue,
    )


def _read_deaths(notes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the broker's records, newest first.

    If `x-death` has no valid entry, derive one record from the headers `x-last-death-*` (since
    RabbitMQ 3.13) or `x-first-death-*`.
    """
    entries = notes.get("x-death")
    deaths = (
        [entry for entry in entries if isinstance(entry, Mapping)]
        if isinstance(entries, list)
        else []
    )
    if deaths:
        return deaths
    for prefix in ("x-last-death", "x-first-death"):
        short = {name: notes.get(f"{prefix}-{name}") for name in ("reason", "queue", "exchange")}
        if short["reason"]:
            return [short]
    return []


def _routing_key(death: Mapping[str, Any]) -> str | None:
    keys = death.get("routing-keys")
    return _text(keys[0]) if isinstance(keys, list) and keys else None


def _milliseconds(moment: object) -> int | None:
    """Convert a time from the broker to milliseconds. The time is in seconds or a datetime."""
    if isinstance(moment, datetime):
        return _positive_int(int(moment.timestamp() * 1000))
    seconds = _positive_int(moment)
    return _positive_int(seconds * 1000) if seconds else None


def _positive_int(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 < value < MAX_COUNT else None


def _text(value: object, most: int = MAX_TEXT_LENGTH) -> str | None:
    return value[:most] if isinstance(value, str) and value else None
