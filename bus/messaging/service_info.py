"""Records in which an instance reports its state, its contracts and its statistics.

The records travel as JSON on the control channel. Old and new versions of the bus exchange them, so
each record ignores unknown fields, and each new field has a default.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bus.contracts.contract import Kind

__all__ = [
    "CandidateInfo",
    "ContractInfo",
    "ErrorInfo",
    "HandlerState",
    "InstanceInfo",
    "InstanceState",
    "InstanceStats",
    "ProcessStats",
    "RememberedMessage",
    "RememberedMessages",
    "Series",
]


class Record(BaseModel):
    """A part of an answer on the control channel."""

    # A sum or a rate of an infinite number would fail in the command that asks.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class InstanceState(Record):
    """The answer to PING: which process this is, and whether it works."""

    service: str
    instance: str
    """Name of the process, unique among the processes of all services."""
    version: str | None = None
    """Version of the service (`BUS_SERVICE_VERSION`)."""
    started: int
    """Start of the process, in milliseconds since the epoch."""
    state: Literal["starting", "ready", "not-ready", "draining"]
    """`draining` if the process is stopping, and only finishes running handlers."""
    left_out: int = 0
    """Number of entries that the answer does not contain, because it would be too large."""
    flooded: bool = False
    """True if questions to the instance could be lost in the last minute, because it was flooded.

    The answer to INFO does not have this field.
    """


class ContractInfo(Record):
    """A contract that an instance serves or subscribes to."""

    type: str
    """Type on the wire, for example `transcription.get.v1`."""
    kind: Kind
    permission: str
    queue: str
    subscription: str | None = None
    digest: str
    """SHA-256 of the JSON Schema of the payload, in hexadecimal."""
    reply_digest: str | None = None
    """SHA-256 of the JSON Schema of the reply. None if the contract has no reply."""


class InstanceInfo(InstanceState):
    """The answer to INFO."""

    bus_version: str
    """Version of this library."""
    python_version: str
    contracts: tuple[ContractInfo, ...] = ()


class ErrorInfo(Record):
    """The last error of a handler. It has no text, because a text can be confidential."""

    code: str
    at: int
    """Milliseconds since the epoch."""
    place: str | None = None
    """File, line and function that raised the error."""


class CandidateInfo(Record):
    """A poison candidate: a message that may have ended an earlier process."""

    id: str
    """Id of the message, cut after 64 characters."""
    lost_deliveries: int
    """The broker's count of deliveries that ended with their process or connection."""
    running: bool
    """True if the message is processed alone now. False if running messages must end before."""


class HandlerState(Record):
    """The state of one handler in one process at this moment."""

    operation: str
    """Name of the contract without its version, for example `transcription.get`."""
    version: int
    kind: Kind
    queue: str
    subscription: str | None = None
    slots: int
    free: int
    """Slots without a message."""
    in_flight: int
    """Messages that were received and are not settled."""
    oldest_seconds: float | None = None
    """Seconds for which the oldest message has been in the handler. None if no message is."""
    full_seconds: float | None = None
    """Seconds for which all slots have had the same messages. None unless all have one."""
    timeout: float | None = None
    """Maximum seconds of the handler for one message. None: no limit."""
    pauses: tuple[str, ...] = ()
    """Reasons why the consumer is paused, for example `poison-isolation`."""
    candidate: CandidateInfo | None = None
    """The message of this handler that is processed alone, or that is the next one."""
    ready: bool = True
    """True if the consumer is registered at the broker."""
    last_error: ErrorInfo | None = None
    last_handled: int | None = None
    """Time of the last handled message, in milliseconds since the epoch."""


class Series(Record):
    """The values of one instrument with one set of labels, since the start of the process."""

    name: str
    """Name of the instrument."""
    labels: dict[str, str] = Field(default_factory=dict)
    value: float = 0
    """Total of a counter, value of a gauge, or sum of a histogram."""
    recent_value: float = 0
    """As `value` of a counter, for the last 1 to 2 minutes only. 0 for other instruments."""
    latest_value: float = 0
    """As `recent_value`, for the last 10 to 20 seconds only."""
    count: int = 0
    """Number of values in a histogram."""
    max: float = 0
    """Largest value in a histogram."""
    buckets: dict[int, int] = Field(default_factory=dict)
    """Number of values in each bucket of a histogram that is not empty, by the bucket's index."""
    recent: dict[int, int] = Field(default_factory=dict)
    """As `buckets`, for the last 1 to 2 minutes only."""
    recent_max: float = 0
    """Largest value of the last 1 to 2 minutes."""
    exemplars: dict[int, tuple[str, float, int]] = Field(default_factory=dict)
    """Trace id, value, and time in milliseconds of one value in each bucket, by the index."""
    last: int = 0
    """Time of the last report, in milliseconds since the epoch."""


class InstanceStats(InstanceState):
    """The answer to STATS."""

    since: int
    """Begin of the measurements, in milliseconds since the epoch."""
    handlers: tuple[HandlerState, ...] = ()
    series: tuple[Series, ...] = ()


class ProcessStats(Record):
    """The reports of all services in one process, which its parent reads (`bus run`)."""

    pid: int
    instances: tuple[InstanceStats, ...] = ()


class RememberedMessage(Record):
    """A message that an instance sent or handled. It has no payload and no text of an error."""

    action: Literal["sent", "running", "handled", "retried", "dead-lettered", "refused"]
    """`running` if the handler has not ended. `seconds` is then the time since its start."""
    id: str
    type: str
    source: str
    at: int
    """Begin of the action, in milliseconds since the epoch."""
    seconds: float = 0
    attempt: int = 1
    outcome: str = "ok"
    """`ok`, or the code of an error."""
    correlation_id: str = ""
    causation_id: str | None = None
    traceparent: str | None = None
    queue: str | None = None
    tier: str | None = None
    """Retry tier in which a retried message waits."""
    lost_deliveries: int = 0
    """Deliveries that ended with their process or connection before. 0 if there is at most one."""


class RememberedMessages(InstanceState):
    """The answer to the question for the messages of one correlation id."""

    since: int
    """Time from which on all messages are remembered, in milliseconds since the epoch."""
    remembered: int = 0
    """Number of all messages that the instance remembers."""
    messages: tuple[RememberedMessage, ...] = ()
