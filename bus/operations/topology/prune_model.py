"""Values of a run that deletes old objects: the observed state, and the decisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from bus.messaging.topology.model import Binding

__all__ = ["Decision", "Observation", "QueueObservation"]

Action = Literal["unbind", "wait", "delete", "keep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueObservation:
    """The state of a queue at one moment."""

    messages: int = 0
    """Ready and unacked messages, and messages that the broker is dead-lettering."""
    consumers: int = 0
    bindings: frozenset[Binding] = frozenset()
    empty_for: float = 0.0
    """Seconds for which the queue had no messages."""
    quiet_for: float = 0.0
    """Seconds for which the queue had no messages, no consumers and no binding to its source."""


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
    """Bindings to remove, for `unbind`."""
    follows: str = ""
    """Queue that must be deleted before this object. Empty if the reason is this object's own."""

    @override
    def __str__(self) -> str:
        return f"{self.action} {self.what} {self.name}{f': {self.detail}' if self.detail else ''}"
