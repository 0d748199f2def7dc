"""Trace context: the values of `traceparent` and `tracestate`, as W3C Trace Context defines them.

The standard is https://www.w3.org/TR/trace-context-2/ (level 2). It accepts all values of level 1.
"""

import re
from contextvars import ContextVar
from typing import NamedTuple

from bus.messaging.ids import random_hex_factory

__all__ = [
    "ATTEMPT_TRACEPARENT",
    "MAX_TRACESTATE_LENGTH",
    "TraceParent",
    "child_traceparent",
    "is_unsampled",
    "new_span_id",
    "new_trace_id",
    "new_traceparent",
    "parse_traceparent",
    "recorded_trace",
    "shorten_tracestate",
    "unsampled_traceparent",
    "valid_tracestate",
]

ATTEMPT_TRACEPARENT = "attempt-traceparent"
"""Header with the span of the last attempt, on retry copies, dead letters and replays."""
MAX_TRACESTATE_LENGTH = 512
"""Maximum number of characters in a tracestate that the bus creates from longer data.

The standard requires that each participant passes on at least this number of characters. Services
of earlier versions refuse a message if its tracestate has more than 1024 characters.
"""
MAX_MEMBERS = 32
"""Maximum number of members of a tracestate."""
LONG_MEMBER = 128
"""Number of characters. A member that has more is the first that a shortened tracestate loses."""
SAMPLED, RANDOM = 1, 2
"""Trace flags: the sender may have recorded the trace; the trace id is random (level 2)."""
KNOWN_FLAGS = SAMPLED | RANDOM
FLAGS = {f"{bits:02x}": f"{bits & KNOWN_FLAGS:02x}" for bits in range(256)}
"""Received flags, and the flags that the bus sends: all unknown bits are zero."""

EVEN_DIGITS = frozenset("02468ace")

TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
MEMBER = re.compile(
    r"(?P<key>[a-z0-9][a-z0-9_\-*/@]{0,255})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
"""One member of a tracestate. Level 2 allows a digit at the start of each key."""
OWS = " \t"
"""The optional white space around a member."""

new_trace_id, new_span_id = random_hex_factory(16), random_hex_factory(8)
"""Functions that return a random trace id of 32 digits, and a random span id of 16 digits."""

recorded_trace: ContextVar[str | None] = ContextVar("bus.recorded_trace", default=None)
"""Trace id of the span that is being recorded now, in 32 hexadecimal digits.

None if no span is recorded: OpenTelemetry is not used, or the trace is not sampled.
"""


class TraceParent(NamedTuple):
    """The parts of a valid traceparent."""

    trace_id: str
    """32 hexadecimal digits, not all zero."""
    span_id: str
    """16 hexadecimal digits, not all zero."""
    flags: int
    """Flags that level 2 defines: `sampled` (1) and `random` (2). All other bits are zero."""


def parse_traceparent(text: str | None) -> TraceParent | None:
    """Return the parts of a traceparent, or None if it is missing or invalid.

    If it is invalid, the receiver starts a new trace and ignores the tracestate, as the standard
    requires. A later version can have more fields after the flags. It is parsed as version 00.
    """
    match = TRACEPARENT.fullmatch(text) if text else None
    if match is None or (match[1] == "00" and match[5]):
        return None
    return TraceParent(match[2], match[3], int(match[4], 16) & KNOWN_FLAGS)


def new_traceparent() -> str:
    """Return the traceparent of a new trace. Its trace id is random, and it is sampled."""
    return f"00-{new_trace_id()}-{new_span_id()}-03"


def child_traceparent(parent: str | None) -> str | None:
    """Return the traceparent of a new span in the same trace. Return None if `parent` is invalid.

    It does the same as `parse_traceparent`, without a tuple, because each nested message needs it.
    """
    match = TRACEPARENT.fullmatch(parent) if parent else None
    if match is None or (match[1] == "00" and match[5]):
        return None
    return f"00-{match[2]}-{new_span_id()}-{FLAGS[match[4]]}"


def unsampled_traceparent(trace_id: str) -> str:
    """Return the traceparent of a new span in a new trace that is not sampled."""
    return f"00-{trace_id}-{new_span_id()}-02"


def is_unsampled(traceparent: str | None) -> bool:
    """Return True if a traceparent is valid, and has not the flag `sampled`."""
    match = TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or (match[1] == "00" and match[5]):
        return False
    return match[4][1] in EVEN_DIGITS


def valid_tracestate(text: str | None) -> str | None:
    """Return the tracestate if it is valid, otherwise None. The traceparent stays valid.

    A tracestate with a malformed member, a duplicate key or more than 32 members is invalid as a
    whole. Empty members and white space around a member are allowed.
    """
    return None if not text or _members(text) is None else text


def shorten_tracestate(text: str | None) -> str | None:
    """Return the tracestate with at most `MAX_TRACESTATE_LENGTH` characters.

    Members of more than 128 characters are left out first, and then the last members. An invalid
    tracestate, or one that loses all members, becomes None.
    """
    members = _members(text) if text else None
    if not members:
        return None
    while members and len(",".join(members)) > MAX_TRACESTATE_LENGTH:
        long = [member for member in members if len(member) > LONG_MEMBER]
        members.remove(long[-1] if long else members[-1])
    return ",".join(members) or None


def _members(text: str) -> list[str] | None:
    """Return the members of a tracestate that are not empty, or None if it is invalid."""
    members = [member for each in text.split(",") if (member := each.strip(OWS))]
    keys = set()
    for member in members:
        match = MEMBER.fullmatch(member)
        if match is None:
            return None
        keys.add(match["key"])
    return members if len(keys) == len(members) <= MAX_MEMBERS else None
