"""Values of a run that deletes old objects: the observed state, and the decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from typing_extensions import override

from bus.messaging.plurals import count_noun
from bus.messaging.topology.model import Binding

__all__ = [
    "BOUND_AGAIN",
    "CHECKING",
    "QUIET_SECONDS",
    "UNBOUND_SECONDS",
    "Decision",
    "Observation",
    "QueueObservation",
    "bindings_of",
    "is_quiet",
    "remove_quiet",
    "why_wait",
]

QUIET_SECONDS = 6.0
"""Seconds for which a queue must be empty and without consumers before it is unbound.

RabbitMQ renews the totals of a quorum queue every 5 s (its `quorum_tick_interval`). Only the totals
include unacked messages, and messages that the broker is dead-lettering.
"""
UNBOUND_SECONDS = 2.0
"""Seconds between the removal of the binding and the deletion.

A worker can start at the moment of the removal, and a message can be in flight to the queue.
"""
CHECKING = f"no message may be in flight for {QUIET_SECONDS:g} s"
SETTLING = f"no worker may start and no message may arrive for {UNBOUND_SECONDS:g} s"
BOUND_AGAIN = (
    "a worker with the earlier code has bound it again. Stop this worker, and run the command "
    "again."
)

Action = Literal["unbind", "bind", "wait", "delete", "keep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueObservation:
    """The state of a queue at one moment."""

    messages: int = 0
    """Ready and unacked messages, and messages that the broker is dead-lettering."""
    consumers: int = 0
    bindings: frozenset[Binding] = frozenset()
    removed: tuple[Binding, ...] = ()
    """Bindings to its source that this run has removed."""
    empty_for: float = 0.0
    """Seconds for which the queue had no messages."""
    quiet_for: float = 0.0
    """Seconds for which the queue had no messages and no consumers."""
    unbound_for: float = 0.0
    """Seconds for which the queue was also not bound to its source."""


Observation = Mapping[str, QueueObservation]
"""Observation of each old queue that exists, and of each retry tier of its service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The next step for one queue or exchange. `str` formats it as one line."""

    action: Action
    what: Literal["queue", "exchange"]
    name: str
    detail: str = ""
    """Reason for `wait` and `keep`. The reason for `keep` contains the remedy."""
    bindings: tuple[Binding, ...] = ()
    """Bindings to remove, for `unbind`, or to create again, for `bind`."""
    follows: str = ""
    """Queue that must be deleted before this object. Empty if the reason is this object's own."""

    @override
    def __str__(self) -> str:
        return f"{self.action} {self.what} {self.name}{f': {self.detail}' if self.detail else ''}"


def is_quiet(seconds: float) -> bool:
    """Return True if a queue that was quiet for `seconds` has no message in flight."""
    return seconds >= QUIET_SECONDS


def is_settled(seconds: float) -> bool:
    """Return True if a queue that was unbound for `seconds` gets no message from its source."""
    return seconds >= UNBOUND_SECONDS


def bindings_of(state: QueueObservation, exchange: str) -> tuple[Binding, ...]:
    """Return the bindings of a queue to an exchange, in sorted order."""
    found = [binding for binding in state.bindings if binding.exchange == exchange]
    return tuple(sorted(found, key=lambda binding: binding.routing_key))


def why_wait(state: QueueObservation) -> str | None:
    """Return the reason why a queue cannot be unbound or deleted yet, or None."""
    if state.consumers:
        return f"{count_noun(state.consumers, 'consumer')} must stop"
    if state.messages:
        return f"{count_noun(state.messages, 'message')} must be handled by the earlier code"
    return None if is_quiet(state.quiet_for) else CHECKING


def remove_quiet(step: Decision, state: QueueObservation, sources: tuple[Binding, ...]) -> Decision:
    """Return the next step for a quiet queue: unbind, wait for a short time, delete.

    Args:
        step: The decision to delete the queue.
        state: The state of the queue.
        sources: Bindings to remove before the deletion.
    """
    if sources:
        return replace(step, action="unbind", bindings=sources)
    if not is_settled(state.unbound_for):
        return replace(step, action="wait", detail=SETTLING)
    return step
