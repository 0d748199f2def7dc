"""Dead letters for people and for programs. The payload is shown only where it is asked for."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.output import escaped, harmless, say
from bus.errors import BusError
from bus.operations.dead_letters import DeadLetter
from bus.runtime.security import cipher_from_settings
from bus.security.encryption import ENCRYPTION
from bus.settings import load_settings

__all__ = ["as_value", "details", "jsonable", "listing", "opened", "payload"]

WIDE = 140
"""Characters of a terminal in which a letter has its place on one line; a narrower one takes two."""
UNKNOWN = "-"


def listing(letters: Sequence[DeadLetter], console: Console) -> None:
    """A table; ids stand in full, since they are what the next command takes."""
    if console.width < WIDE:
        narrow(letters, console)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("time", "type", "code", "attempts", "id", "correlation id"):
        table.add_column(name, no_wrap=True, justify="right" if name == "attempts" else "left")
    for letter in letters:
        table.add_row(
            *map(Text, (*row(letter), harmless(letter.id), harmless(letter.correlation_id)))
        )
    console.print(table)


def narrow(letters: Sequence[DeadLetter], console: Console) -> None:
    """Two lines for each: what happened, and the two ids."""
    console.print(f"{'time':19}  {'attempts':>8}  type, code", style="bold", highlight=False)
    console.print(f"{'id':36}  correlation id", style="bold", highlight=False)
    for letter in letters:
        when, type_, code, attempts = row(letter)
        console.print(Text(f"{when:19}  {attempts:>8}  {type_}, {code}"), soft_wrap=True)
        console.print(
            Text(f"{harmless(letter.id):36}  {harmless(letter.correlation_id)}", style="dim"),
            soft_wrap=True,
        )


def row(letter: DeadLetter) -> tuple[str, str, str, str]:
    """Time, type, code and attempts."""
    record = letter.record
    return (
        moment(record.last_at),
        harmless(letter.type) or UNKNOWN,
        harmless(record.code),
        str(record.attempts or UNKNOWN),
    )


def details(letter: DeadLetter, *, now: int) -> Table:
    """Everything but the payload; `now` in ms."""
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in (*facts(letter, now), *others(letter)):
        grid.add_row(Text(harmless(name)), Text(harmless(value)))
    return grid


def facts(letter: DeadLetter, now: int) -> Iterator[tuple[str, str]]:
    """What the record and the envelope say, for an operator."""
    envelope, record = letter.envelope, letter.record
    yield "id", letter.id
    yield "type", letter.type or UNKNOWN
    yield "from", envelope.source or UNKNOWN
    yield "correlation id", letter.correlation_id
    yield "caused by", envelope.causation_id or UNKNOWN
    yield "sent", moment(envelope.timestamp * 1000)
    yield (
        "expires",
        moment(envelope.expires)
        + (" (it has)" if envelope.expires and envelope.expires <= now else ""),
    )
    yield "code", record.code
    yield "reason", record.reason or UNKNOWN
    yield "attempts", str(record.attempts or UNKNOWN)
    yield "first failure", moment(record.first_at)
    yield "died", moment(record.last_at)
    yield "work queue", record.queue or UNKNOWN
    yield "lies in", letter.dead_queue
    yield "given up by", giver(letter)


def giver(letter: DeadLetter) -> str:
    """The worker, or the broker."""
    record = letter.record
    if record.by != "worker":
        return (
            "the broker (it has noted no more than this)"
            if record.by == "broker"
            else "nobody knows: it has no record"
        )
    service = " ".join(each for each in (record.service, record.version) if each)
    return f"{service or UNKNOWN} on {record.host or UNKNOWN} with trunkline {record.trunkline or UNKNOWN}"


def others(letter: DeadLetter) -> Iterator[tuple[str, str]]:
    """The headers beside the record's."""
    for name, value in sorted(letter.headers.items()):
        if not name.startswith("dead-") and name != "first-failed-at":
            yield (
                f"header {name}",
                moment(value) if name == "replayed-at" and isinstance(value, int) else str(value),
            )


def opened(letter: DeadLetter) -> DeadLetter:
    """With its payload decrypted, where it is encrypted and the keys are at hand; else as it lies there, and why is said."""
    if ENCRYPTION not in letter.envelope.headers:
        return letter
    try:
        return replace(
            letter, envelope=cipher_from_settings(load_settings()).decrypt(letter.envelope)
        )
    except BusError as error:
        say(f"shown as it lies there: {error}")
        return letter


def payload(letter: DeadLetter) -> str:
    """The body as it may be shown on a terminal: indented where it is JSON, else as its bytes are written in Python."""
    try:
        return escaped(json.dumps(json.loads(letter.envelope.body), ensure_ascii=False, indent=2))
    except (ValueError, RecursionError):
        return repr(letter.envelope.body)


def moment(milliseconds: int | None) -> str:
    """In this machine's time zone."""
    if not milliseconds:
        return UNKNOWN
    try:
        return (
            datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        )
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"


def as_value(letter: DeadLetter, *, headers: bool = False, body: bool = False) -> dict[str, Any]:
    """For programs; times in milliseconds since the epoch, null for what nobody noted, the body in base64."""
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
    """Headers as JSON has them."""
    match value:
        case Mapping():
            return {str(name): jsonable(each) for name, each in value.items()}
        case list() | tuple():
            return [jsonable(each) for each in value]
        case str() | int() | float() | None:
            return value
        case datetime():
            return int(value.timestamp() * 1000)
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
    return str(value)
