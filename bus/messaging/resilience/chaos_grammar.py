"""The grammar of a chaos plan, for `BUS_CHAOS` and `bus chaos start`.

    plan   = part *( ";" part )
    part   = target ":" fault *( "," fault ) / "for=" time / "seed=" number
    target = "*" / name / type                      ; billing.quote or billing.quote.v1
    fault  = kind [ "@" percent "%" ]
    kind   = "latency=" time [ "-" time ] / "error=" code / "drop-reply" / "duplicate"
    time   = number ( "ms" / "s" / "m" / "h" )

White space around each part has no meaning.
"""

import re
from collections.abc import Iterator
from typing import Final

from bus.contracts.names import NAME
from bus.errors import CANONICAL, ProcessLost, Unknown
from bus.messaging.resilience.chaos_plan import (
    EVERY_OPERATION,
    MAX_CHAOS_SECONDS,
    ChaosPlan,
    ChaosRule,
    Fault,
)

__all__ = ["MAX_LATENCY_SECONDS", "MAX_PLAN_LENGTH", "ChaosSyntaxError", "parse_chaos"]

MAX_LATENCY_SECONDS: Final = 600.0
"""Maximum latency. A message must not outlast the consumer timeout of the broker."""
MAX_PLAN_LENGTH: Final = 2000
"""Maximum number of characters of a plan."""
ERROR_CODES: Final = tuple(sorted(CANONICAL.keys() - {Unknown.code, ProcessLost.code}))
UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h)")
PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
SEED = re.compile(r"[0-9]{1,15}")
FAULTS = "latency=200ms, error=unavailable, drop-reply or duplicate"


class ChaosSyntaxError(ValueError):
    """A text that is not a chaos plan. The message has the position, and never shows the text."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(f"character {position + 1}: {problem}")
        self.position = position
        """Position of the problem in the text, from 0."""


def parse_chaos(text: str) -> ChaosPlan:
    """Return the plan in a text such as `billing.quote: latency=200ms@10%; for=10m`.

    Raises:
        ChaosSyntaxError: The text does not follow the grammar, or a value is out of range.
    """
    if len(text) > MAX_PLAN_LENGTH:
        raise ChaosSyntaxError(
            MAX_PLAN_LENGTH, f"the plan has more than {MAX_PLAN_LENGTH} characters. Shorten it"
        )
    rules: list[ChaosRule] = []
    seconds: float | None = None
    seed: int | None = None
    for at, part in _split(text, ";", 0):
        if part.startswith("for="):
            if seconds is not None:
                raise ChaosSyntaxError(at, "the plan has a second for=. Remove one of the two")
            seconds = _time(at + 4, part[4:], MAX_CHAOS_SECONDS)
        elif part.startswith("seed="):
            if seed is not None:
                raise ChaosSyntaxError(at, "the plan has a second seed=. Remove one of the two")
            seed = _seed(at + 5, part[5:])
        else:
            rules.append(_rule(at, part))
    if not rules:
        raise ChaosSyntaxError(
            0, f"the plan has no faults. Write an operation and faults: billing.quote: {FAULTS}"
        )
    return ChaosPlan(tuple(rules), seconds, seed)


def _split(text: str, separator: str, start: int) -> Iterator[tuple[int, str]]:
    """Yield the position and the text of each part, without the white space around it."""
    at = start
    for part in text.split(separator):
        bare = part.strip()
        yield at + part.find(bare), bare
        at += len(part) + len(separator)


def _rule(at: int, part: str) -> ChaosRule:
    target, colon, faults = part.partition(":")
    if not colon:
        raise ChaosSyntaxError(
            at,
            "an operation with a colon, for= or seed= must stand here. Write "
            "billing.quote: error=unavailable@5%, or for=10m",
        )
    name = target.strip()
    if not (name == EVERY_OPERATION or NAME.fullmatch(name)):
        raise ChaosSyntaxError(
            at,
            "the operation is not valid. Write a name such as billing.quote, a type such as "
            f"billing.quote.v1, or {EVERY_OPERATION} for every operation",
        )
    begin = at + len(target) + 1
    return ChaosRule(name, tuple(_fault(each, text) for each, text in _split(faults, ",", begin)))


def _fault(at: int, text: str) -> Fault:
    described, sign, percent = text.partition("@")
    share = _share(at + len(described) + 1, percent) if sign else 1.0
    described = described.rstrip()
    kind, equals, value = described.partition("=")
    position = at + len(kind) + 1
    if kind == "latency" and equals:
        low, high = _latency(position, value)
        return Fault(kind="latency", share=share, low=low, high=high)
    if kind == "error" and equals:
        if value not in ERROR_CODES:
            codes = ", ".join(ERROR_CODES)
            raise ChaosSyntaxError(position, f"the code of the error must be one of {codes}")
        return Fault(kind="error", share=share, code=value)
    if described == "drop-reply":
        return Fault(kind="drop-reply", share=share)
    if described == "duplicate":
        return Fault(kind="duplicate", share=share)
    raise ChaosSyntaxError(at, f"a fault must stand here. Write {FAULTS}, each with a share: @5%")


def _latency(at: int, text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    least = _time(at, low, MAX_LATENCY_SECONDS)
    if not dash:
        return least, least
    most = _time(at + len(low) + 1, high, MAX_LATENCY_SECONDS)
    if most < least:
        raise ChaosSyntaxError(at, "the first time is longer than the second. Exchange them")
    return least, most


def _time(at: int, text: str, longest: float) -> float:
    match = TIME.fullmatch(text.strip())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= longest:
        raise ChaosSyntaxError(
            at, f"a time above 0 and up to {longest:g} s must stand here, such as 200ms, 30s or 10m"
        )
    return seconds


def _share(at: int, text: str) -> float:
    match = PERCENT.fullmatch(text.strip())
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise ChaosSyntaxError(at, "a share above 0% and up to 100% must stand here, such as 5%")
    return share


def _seed(at: int, text: str) -> int:
    if not SEED.fullmatch(text.strip()):
        raise ChaosSyntaxError(at, "a whole number must stand here, such as seed=42")
    return int(text)
