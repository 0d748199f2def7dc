"""Rendering of log records. A value that cannot be rendered must not lose its line.

Applications log any values. JSON has no NaN and only text keys, a `repr` can raise, and a container
can contain itself. A record with such values is rendered with replacements.
"""

import io
import json
import logging
import math
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from typing_extensions import override

from bus.messaging.escaped_text import escape_text
from bus.operations.console_frames import ConsoleFrames

__all__ = [
    "Event",
    "RecordFormatter",
    "add_context_variables",
    "add_extra",
    "protect_own_fields",
    "render_console",
    "render_json",
]

Event = MutableMapping[str, Any]

OWN_FIELDS = frozenset({"event", "level", "logger", "timestamp", "exception"})
"""Fields of a rendered record that a user's `extra` cannot replace."""
CONSOLE_FIELDS = frozenset({"stack", "logger_name"})
"""Fields to which structlog's renderer for a terminal gives a meaning of its own.

If a user's field has such a name, the renderer can fail, or write the value elsewhere.
"""
INTERNAL_FIELDS = frozenset({"_record", "_from_structlog", "_logger", "_name"})
"""Fields by which structlog controls the rendering."""
RENAMED_FIELDS = OWN_FIELDS | CONSOLE_FIELDS | INTERNAL_FIELDS
PREFIX = "extra_"
RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes of a log record that are not from `extra`."""
TEXT_FIELDS = frozenset({"event", "exception", "level", "logger", "stack", "timestamp"})
"""Fields that the renderer for a terminal writes without quotation marks."""
PASSED_FIELDS = frozenset({"exc_info"}) | INTERNAL_FIELDS
QUOTED = frozenset(" \t=\r\n\"'")
"""Characters because of which structlog quotes a text on a terminal."""
TRACEBACK = "Traceback (most recent call last)"
MAX_DEPTH = 20
"""Maximum depth of nested containers. Deeper containers are replaced."""
MAX_INTEGER_BITS = 10_000
"""Maximum size of an integer. Python refuses to convert a larger integer to text."""


def _own_name(name: str) -> str:
    return PREFIX + name if name in RENAMED_FIELDS else name


def add_extra(_logger: object, _method: str, event: Event) -> Event:
    """Add the `extra` of a record of the standard library.

    A name of the record's own fields gets the prefix `extra_`.
    """
    record = event.get("_record")
    for name, value in () if record is None else vars(record).items():
        if name not in RECORD_ATTRIBUTES:
            event[_own_name(name)] = value
    return event


def add_context_variables(_logger: object, _method: str, event: Event) -> Event:
    """Add the variables of `structlog.contextvars`, with the prefix as in `add_extra`."""
    for name, value in structlog.contextvars.get_contextvars().items():
        event.setdefault(_own_name(name), value)
    return event


def protect_own_fields(_logger: object, _method: str, event: Event) -> Event:
    """Rename the fields of a structlog event that would replace the record's own fields.

    The name gets the prefix `extra_`. The text of the event itself has the name `event`.
    """
    return {
        name if name == "event" or not isinstance(name, str) else _own_name(name): value
        for name, value in event.items()
    }


# --- Renderers ---


class RecordFormatter(structlog.stdlib.ProcessorFormatter):
    """Formatter that also writes a record whose arguments do not fit its text."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text. If that fails, return its text without the arguments."""
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - the values of an application, as below
            fields = {"name": record.name, "levelno": record.levelno, "msg": _text_of(record.msg)}
            facts = {"levelname": record.levelname, "format_error": type(error).__name__}
            extra = {
                name: plain(value)
                for name, value in vars(record).items()
                if name not in RECORD_ATTRIBUTES and name not in INTERNAL_FIELDS
            }
            try:
                return super().format(logging.makeLogRecord({**extra, **fields, **facts}))
            except Exception:  # noqa: BLE001 - a field is the reason
                return super().format(logging.makeLogRecord({**fields, **facts}))


def render_json(logger: Any, method: str, event: Event) -> str:
    """Return the record as one line of valid JSON."""
    event = structlog.processors.format_exc_info(logger, method, event)
    try:
        # Most records need no replacement, and a check of each value would take longer.
        if not any(map(_has_mixed_keys, event.values())):
            return _write_json(event, default=_fallback)
    except Exception:  # noqa: BLE001, S110 - the values of an application can raise any exception
        pass
    return _write_json(plain(event))


def _write_json(value: object, **options: Any) -> str:
    """Return a value as JSON in ASCII, which a terminal can show. DEL is escaped, too."""
    return json.dumps(value, allow_nan=False, **options).replace("\x7f", "\\u007f")


def render_console(out: TextIO, *, all_frames: bool) -> structlog.typing.Processor:
    """Return a renderer of readable text for a terminal.

    Each frame of a failure that the bus logs is on a line of its own, unless the record has a
    traceback. The line of a dead letter does not repeat the frames of its message's failure.

    Args:
        out: Output of the text. It is coloured on a terminal.
        all_frames: True shows all frames. False leaves out the frames that call the handler, if the
            failure has other frames.
    """
    choice = ConsoleFrames(all_frames=all_frames)
    renderer = structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=_write_traceback
    )

    def render(logger: Any, method: str, event: Event) -> str:
        frames: list[str] = event.pop("frames") if _has_frames(event) else []
        shown = choice.choose(event, frames)
        try:
            text = str(renderer(logger, method, _escape_values(event)))
        except Exception:  # noqa: BLE001 - as in `render_json`
            kept = {name: event[name] for name in ("exc_info",) if name in event}
            text = str(renderer(logger, method, _escape_values({**plain(event), **kept})))
        if TRACEBACK in text:
            return text
        return "\n".join([text, *(f"    {escape_text(frame)}" for frame in shown)])

    return render


def _has_frames(event: Event) -> bool:
    """Return True if the record has the frames of a failure, and not a user's own field."""
    frames = event.get("frames")
    return (
        str(event.get("logger")).startswith("bus.")
        and isinstance(frames, list)
        and all(isinstance(frame, str) for frame in frames)
    )


def _write_traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Write a traceback with unsafe characters escaped. Its text can be from another service."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(escape_text(text.getvalue()))


def _escape_values(event: Event) -> Event:
    """Escape the names and values of a record for a terminal.

    Other services choose message types and ids. These texts must not control the operator's
    terminal.
    """
    return {escape_text(str(name)): _escape_value(name, event[name]) for name in event}


def _escape_value(name: object, value: object) -> object:
    if isinstance(value, str) and name in TEXT_FIELDS:
        return escape_text(value)
    return value if name in PASSED_FIELDS else _EscapedValue(value)


class _EscapedValue:
    """Value of a field, which structlog's renderer writes as its `repr`."""

    def __init__(self, value: object) -> None:
        self._value = value

    @override
    def __repr__(self) -> str:
        value = self._value
        is_word = isinstance(value, str) and not QUOTED & {*value}
        return escape_text(str(value) if is_word else repr(value))


# --- Values ---


def _fallback(value: object) -> object:
    """Return a value that JSON can express, for a value of an unknown class."""
    if isinstance(value, set | frozenset):
        return list(value)
    custom = getattr(value, "__structlog__", None)
    return repr(value) if custom is None else custom()


def plain(value: object, parents: tuple[int, ...] = ()) -> Any:
    """Return a copy of a value with only text keys, finite numbers and JSON's own types.

    Args:
        value: Any value.
        parents: Ids of the containers that contain the value.
    """
    try:
        return _plain(value, parents)
    except Exception:  # noqa: BLE001 - an application's value can raise any exception
        return _text_of(value)


def _plain(value: object, parents: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        bits = int.bit_length(value)
        return int.__int__(value) if bits <= MAX_INTEGER_BITS else f"<integer of {bits} bits>"
    if isinstance(value, float):
        return float.__float__(value) if math.isfinite(value) else _name_of(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _plain_container(value, parents)
    return _text_of(value)


def _name_of(value: float) -> str:
    """Return the name of a number that JSON cannot express, as JavaScript spells it."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _plain_container(value: Any, parents: tuple[int, ...]) -> Any:
    if id(value) in parents:
        return f"<{type(value).__name__} that contains itself>"
    if len(parents) >= MAX_DEPTH:
        return f"<{type(value).__name__} below {MAX_DEPTH} levels>"
    inside = (*parents, id(value))
    if isinstance(value, Mapping):
        names = _unique_names(value)
        return {names[key]: plain(item, inside) for key, item in value.items()}
    return [plain(item, inside) for item in value]


def _key_of(key: object) -> str:
    return str.__str__(key) if isinstance(key, str) else _text_of(key)


def _has_mixed_keys(value: object, depth: int = 0) -> bool:
    """Return True if a dict in a value has both text and other keys, such as "1" and 1.

    As text such keys can be equal. Data that is very deep also counts, to end the search.
    """
    if isinstance(value, dict):
        texts = sum(isinstance(key, str) for key in value)
        if 0 < texts < len(value):
            return True
        items: Iterable[object] = value.values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        return False
    return depth >= MAX_DEPTH or any(_has_mixed_keys(item, depth + 1) for item in items)


def _unique_names(mapping: Mapping[Any, object]) -> dict[Any, str]:
    """Return a text for each key. Text keys keep theirs, and others are made unique by a type."""
    names = {key: _key_of(key) for key in mapping if isinstance(key, str)}
    taken = set(names.values())
    for key in mapping:
        if isinstance(key, str):
            continue
        name = _key_of(key)
        if name in taken:
            name = f"{name} ({type(key).__name__})"
        while name in taken:
            name += "'"
        names[key] = name
        taken.add(name)
    return names


def _text_of(value: object) -> str:
    try:
        return str.__str__(repr(value))
    except Exception:  # noqa: BLE001 - as above
        return f"<{type(value).__name__}, whose repr raises an exception>"
