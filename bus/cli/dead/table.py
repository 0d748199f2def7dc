"""Conversion of dead letters to tables, text and JSON. The payload is included only on request."""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.output import format_json, say
from bus.errors import BusError
from bus.messaging.escaped_text import escape_text, one_line
from bus.messaging.fault_record import FIRST_FAILED
from bus.messaging.sent_time import SENT_AT
from bus.operations.dead_letters import DeadLetter
from bus.runtime.security import cipher_from_settings
from bus.security.encryption import ENCRYPTION
from bus.settings import load_settings

__all__ = ["decrypt_payload", "details", "format_payload", "jsonable", "show_table", "to_json"]

WIDE_COLUMNS = 140
"""Minimum terminal width at which each dead letter is shown on one line.

On a narrower terminal, each dead letter is shown on two or three lines.
"""
LOCATION_COLUMNS = 50
"""Additional terminal width that the column with the location of a failure requires."""
UNKNOWN = "-"


def show_table(letters: Sequence[DeadLetter], console: Console) -> None:
    """Print the dead letters as a table. Ids are never shortened, so users can copy them."""
    located = any(letter.record.where for letter in letters)
    if console.width < WIDE_COLUMNS + (LOCATION_COLUMNS if located else 0):
        show_narrow(letters, console)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("time", "type", "code", "attempts", "id", "correlation id"):
        table.add_column(name, no_wrap=True, justify="right" if name == "attempts" else "left")
    if located:
        table.add_column("where", overflow="fold")
    for letter in letters:
        ids = (one_line(letter.id), one_line(letter.correlation_id))
        where = (one_line(letter.record.where or UNKNOWN),) if located else ()
        table.add_row(*map(Text, (*table_row(letter), *ids, *where)))
    console.print(table)


def show_narrow(letters: Sequence[DeadLetter], console: Console) -> None:
    """Print the failure of each dead letter, its message id and correlation id, and its location.

    A dead letter without a location has only the first two lines.
    """
    console.print(f"{'time':19}  {'attempts':>8}  type, code", style="bold", highlight=False)
    console.print(f"{'id':36}  correlation id", style="bold", highlight=False)
    for letter in letters:
        time, type_, code, attempts = table_row(letter)
        console.print(Text(f"{time:19}  {attempts:>8}  {type_}, {code}"), soft_wrap=True)
        console.print(
            Text(f"{one_line(letter.id):36}  {one_line(letter.correlation_id)}", style="dim"),
            soft_wrap=True,
        )
        if letter.record.where:
            location = f"at {one_line(letter.record.where)}"
            console.print(Text(location, style="dim"), soft_wrap=True)


def table_row(letter: DeadLetter) -> tuple[str, str, str, str]:
    """Return the time, type, code and number of attempts of a dead letter."""
    record = letter.record
    return (
        format_time(record.last_at),
        one_line(letter.type) or UNKNOWN,
        one_line(record.code),
        str(record.attempts or UNKNOWN),
    )


def details(letter: DeadLetter, *, now: int) -> Table:
    """Return a table of all properties of a dead letter except the payload.

    `now` is the current time in milliseconds since the epoch.
    """
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in (*properties_of(letter, now), *other_headers(letter)):
        grid.add_row(Text(one_line(name)), Text(escape_text(value)))
    return grid


def properties_of(letter: DeadLetter, now: int) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each property of the envelope and the failure record."""
    envelope, record = letter.envelope, letter.record
    yield "id", letter.id
    yield "type", letter.type or UNKNOWN
    yield "from", envelope.source or UNKNOWN
    yield "correlation id", letter.correlation_id
    yield "caused by", envelope.causation_id or UNKNOWN
    yield "sent", format_time(envelope.timestamp * 1000)
    yield (
        "expires",
        format_time(envelope.expires)
        + (" (expired)" if envelope.expires and envelope.expires <= now else ""),
    )
    yield "code", record.code
    yield "reason", record.reason or UNKNOWN
    yield "where", record.where or UNKNOWN
    yield "frames", "\n".join(map(one_line, record.frames)) or UNKNOWN
    yield "attempts", str(record.attempts or UNKNOWN)
    yield "first failure", format_time(record.first_at)
    yield "dead-lettered", format_time(record.last_at)
    yield "work queue", record.queue or UNKNOWN
    yield "stored in", letter.dead_queue
    yield "abandoned by", abandoned_by(letter)


def abandoned_by(letter: DeadLetter) -> str:
    """Return a description of the worker or broker that dead-lettered the message."""
    record = letter.record
    if record.by != "worker":
        return (
            "the broker (it records nothing else)"
            if record.by == "broker"
            else "unknown (no record)"
        )
    service = " ".join(part for part in (record.service, record.version) if part)
    return (
        f"{service or UNKNOWN} on {record.host or UNKNOWN} "
        f"with trunkline {record.trunkline or UNKNOWN}"
    )


def other_headers(letter: DeadLetter) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each header that is not part of the failure record."""
    for name, value in sorted(letter.headers.items()):
        # Two of the properties show the times of the first send and of the first failure.
        if not name.startswith("dead-") and name not in {FIRST_FAILED, SENT_AT}:
            yield (
                f"header {name}",
                format_time(value)
                if name == "replayed-at" and isinstance(value, int)
                else str(value),
            )


def decrypt_payload(letter: DeadLetter) -> DeadLetter:
    """Return the dead letter with its payload decrypted.

    If the payload cannot be decrypted, print the reason and return the dead letter unchanged.
    """
    if ENCRYPTION not in letter.envelope.headers:
        return letter
    try:
        return replace(
            letter, envelope=cipher_from_settings(load_settings()).decrypt(letter.envelope)
        )
    except BusError as error:
        say(f"the payload is shown encrypted: {error}")
        return letter


def format_payload(letter: DeadLetter) -> str:
    """Return the payload as text for a terminal.

    JSON is indented. Any other payload is shown as a Python bytes literal.
    """
    try:
        return format_json(json.loads(letter.envelope.body), indent=2)
    except (ValueError, RecursionError):
        return repr(letter.envelope.body)


def format_time(milliseconds: int | None) -> str:
    """Return a time as text, in the time zone of this machine."""
    if not milliseconds:
        return UNKNOWN
    try:
        return (
            datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        )
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"


def to_json(letter: DeadLetter, *, headers: bool = False, body: bool = False) -> dict[str, Any]:
    """Return a dead letter as JSON.

    Times are in milliseconds since the epoch. Unknown values are null. The body is in base64.
    """
    envelope = letter.envelope
    value: dict[str, Any] = {
        "id": letter.id,
        "type": letter.type,
        "correlation_id": letter.correlation_id,
        "source": envelope.source,
        "expires": envelope.expires,
        "dead_queue": letter.dead_queue,
        "record": asdict(letter.record),
    }
    if headers:
        value |= {"headers": jsonable(letter.headers), "broker": jsonable(letter.notes)}
    if body:
        value["body"] = base64.b64encode(envelope.body).decode()
    return value


def jsonable(value: Any) -> Any:
    """Convert a header value to a JSON value."""
    match value:
        case Mapping():
            return {str(name): jsonable(item) for name, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case float() if not math.isfinite(value):
            pass  # JSON has no infinity and no NaN
        case str() | int() | float() | None:
            return value
        case datetime():
            return int(value.timestamp() * 1000)
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
    return str(value)
