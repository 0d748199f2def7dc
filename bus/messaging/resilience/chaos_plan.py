"""The plan of a chaos experiment: which faults are injected into which operations, and how often.

Source: Basiri et al., "Chaos Engineering", IEEE Software 33(3) (2016).
"""

from dataclasses import dataclass
from typing import Final, Literal

from typing_extensions import override

__all__ = [
    "DEFAULT_CHAOS_SECONDS",
    "EVERY_OPERATION",
    "FAULT_LIMITS",
    "MAX_CHAOS_SECONDS",
    "ChaosPlan",
    "ChaosRule",
    "Fault",
    "FaultKind",
    "operation_of",
]

DEFAULT_CHAOS_SECONDS: Final = 600.0
"""Seconds after which an experiment ends if its plan has no end."""
MAX_CHAOS_SECONDS: Final = 3600.0
"""Maximum seconds of an experiment."""
EVERY_OPERATION: Final = "*"
FAULT_LIMITS: Final = (
    "drop-reply affects requests, and duplicate affects events, jobs and idempotent requests"
)
"""The messages that some kinds of faults affect, for texts. The others affect all messages."""

FaultKind = Literal["latency", "error", "drop-reply", "duplicate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault, and the share of messages that it affects."""

    kind: FaultKind
    share: float = 1.0
    """Share of the messages, above 0 and up to 1."""
    low: float = 0.0
    """`latency`: minimum seconds. The waits are distributed evenly from `low` to `high`."""
    high: float = 0.0
    """`latency`: maximum seconds."""
    code: str = ""
    """`error`: code of the error that the handler raises."""

    @override
    def __str__(self) -> str:
        share = "" if self.share == 1 else f"@{100 * self.share:.10g}%"
        value = f"={self.code}" if self.kind == "error" else ""
        if self.kind == "latency":
            high = "" if self.low == self.high else f"-{_milliseconds(self.high)}"
            value = f"={_milliseconds(self.low)}{high}"
        return f"{self.kind}{value}{share}"


@dataclass(frozen=True, slots=True)
class ChaosRule:
    """The faults of one operation, or of every operation."""

    target: str
    """A type such as `billing.quote.v1`, a name such as `billing.quote` for all versions, or
    `EVERY_OPERATION`."""
    faults: tuple[Fault, ...]

    def matches(self, type_: str) -> bool:
        """Return True if the rule applies to messages of this type."""
        return self.target in {EVERY_OPERATION, type_, operation_of(type_)}

    @override
    def __str__(self) -> str:
        return f"{self.target}: {', '.join(map(str, self.faults))}"


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """The rules of an experiment, with its duration and the seed of its random numbers."""

    rules: tuple[ChaosRule, ...]
    seconds: float | None = None
    """Duration of the experiment. None: `DEFAULT_CHAOS_SECONDS`."""
    seed: int | None = None
    """Seed with which the same messages get the same faults. None: a random seed."""

    @property
    def faults(self) -> list[tuple[ChaosRule, Fault]]:
        """The faults of all rules, in the order of the plan."""
        return [(rule, fault) for rule in self.rules for fault in rule.faults]

    def matches(self, type_: str) -> bool:
        """Return True if a rule applies to messages of this type."""
        return any(rule.matches(type_) for rule in self.rules)

    def faults_of(self, type_: str) -> tuple[Fault, ...]:
        """Return the faults for messages of a type, in the order of the plan."""
        return tuple(fault for rule in self.rules if rule.matches(type_) for fault in rule.faults)

    @override
    def __str__(self) -> str:
        return "; ".join(map(str, self.rules))


def operation_of(type_: str) -> str:
    """Return the name of an operation without its version, for example `billing.quote`."""
    return type_.rpartition(".v")[0]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.10g}ms"
