"""The values of a message trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bus.messaging.service_info import RememberedMessages
from bus.operations.dead_letters import DeadLetter
from bus.operations.queue_inspection import QueueStatus

__all__ = [
    "Action",
    "Death",
    "MessageTrace",
    "QueuePath",
    "State",
    "TraceSources",
    "TracedMessage",
]

State = Literal[
    "handled",
    "failed",
    "running",
    "retrying",
    "waiting",
    "dead",
    "dead-lettered",
    "refused",
    "unknown",
]
"""State of a message, or of its path through one queue.

- `handled`: the last attempt succeeded, or the sender received the reply to a request.
- `failed`: a request was answered with an error, or the sender of a message received an error.
- `running`: a handler runs now.
- `retrying`: the message waits in a retry tier, and its time of return is known.
- `waiting`: no instance remembers that it handled the message, and the queue has messages.
- `dead`: the message is in a dead-letter queue.
- `dead-lettered`: a worker dead-lettered the message, and it is not in the dead-letter queue.
- `refused`: an instance refused the message, for example because of its proof.
- `unknown`: no source has the end of the message.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSources:
    """The records that a trace is made of. A source that could not be read is None."""

    memories: Sequence[RememberedMessages] | None = None
    """The answer of each instance."""
    letters: Sequence[DeadLetter] | None = None
    """The dead letters that were read, of any correlation id."""
    queues: Sequence[QueueStatus] | None = None
    """The state of the queues of all services."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action of one instance with one message."""

    action: str
    """`sent`, `handled`, `running`, `retried`, `dead-lettered` or `refused`."""
    service: str
    instance: str
    at: int
    """Begin, in milliseconds since the epoch, by the clock of the instance."""
    seconds: float
    attempt: int
    outcome: str
    """`ok`, or the code of an error."""
    tier: str | None = None
    """Retry tier in which a retried message waits."""
    lost_deliveries: int = 0
    """Deliveries that ended with their process or connection before. 0 if there is at most one."""

    @property
    def ended(self) -> int:
        """End of the action, in milliseconds since the epoch."""
        return self.at + int(self.seconds * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A dead letter, as its fault record describes it."""

    code: str
    at: int | None
    """Time of dead-lettering, in milliseconds since the epoch."""
    dead_queue: str
    where: str | None
    """Place of the failure, as `file:line function`."""
    attempts: int | None
    service: str | None
    host: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePath:
    """The path of one message through one queue. An event can have several paths."""

    queue: str
    state: State
    actions: tuple[Action, ...] = ()
    death: Death | None = None
    tier: str | None = None
    """Retry tier of a message in the state `retrying`."""
    returns_at: int | None = None
    """Time at which the message leaves the retry tier, in milliseconds since the epoch."""
    ready: int | None = None
    """Number of ready messages in the queue."""
    consumers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedMessage:
    """One message of a trace."""

    id: str
    type: str
    source: str
    causation_id: str | None
    depth: int
    """Number of causes above this message that are in the trace."""
    state: State
    """The worst state of its paths, so a failure of one subscriber is visible."""
    at: int | None
    """Earliest known time, in milliseconds since the epoch."""
    sent: tuple[Action, ...] = ()
    paths: tuple[QueuePath, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTrace:
    """All known messages of one correlation id."""

    correlation_id: str
    messages: tuple[TracedMessage, ...]
    """The messages, each after its cause. Effects of one cause are in the order of their times."""
    unknown_causes: Mapping[str, str]
    """Id of each cause that no source knows, by the id of the first message that names it."""
    notes: tuple[str, ...] = ()
    """Sentences about the sources: records that are missing, and queues that were not read."""
