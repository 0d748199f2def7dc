"""Records in which an instance reports its state, its contracts and its statistics.

The records travel as JSON on the control channel. Old and new versions of the bus exchange them, so
each record ignores unknown fields, and each new field has a default.

Any service with a key can send a record. So each value has limits, and a record with a value beyond
them is invalid. The limits are far above the values of a real instance.
"""

from collections import Counter
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from bus.contracts.contract import Kind
from bus.messaging.breaker_info import MAX_BREAKERS, BreakerInfo
from bus.messaging.histograms import BOUNDS
from bus.messaging.records import (
    MAX_AMOUNT,
    MAX_COUNT,
    MAX_LABEL_SETS,
    MAX_LABELS,
    MAX_MILLISECONDS,
    MAX_NAME_LENGTH,
    MAX_SECONDS,
    MAX_TEXT_LENGTH,
    Amount,
    Count,
    Milliseconds,
    Name,
    Record,
    Seconds,
    Text,
)

__all__ = [
    "MAX_AMOUNT",
    "MAX_COUNT",
    "MAX_LABELS",
    "MAX_LABEL_SETS",
    "MAX_MESSAGES",
    "MAX_MILLISECONDS",
    "MAX_NAME_LENGTH",
    "MAX_SECONDS",
    "MAX_TEXT_LENGTH",
    "Amount",
    "CandidateInfo",
    "ContractInfo",
    "Count",
    "ErrorInfo",
    "HandlerState",
    "InstanceInfo",
    "InstanceState",
    "InstanceStats",
    "Milliseconds",
    "Name",
    "PauseInfo",
    "ProcessStats",
    "Record",
    "RememberedMessage",
    "RememberedMessages",
    "Seconds",
    "Series",
    "Text",
]


MAX_SERIES: Final = 20_000
MAX_HANDLERS: Final = 5_000
MAX_MESSAGES: Final = 100_000

Bucket = Annotated[int, Field(ge=0, le=len(BOUNDS))]
"""Index of a bucket. The last one has all values above the bounds."""
Histogram = Annotated[dict[Bucket, Count], Field(max_length=len(BOUNDS) + 1)]
Exemplar = tuple[Text, Seconds, Milliseconds]


class InstanceState(Record):
    """The answer to PING: which process this is, and whether it works."""

    service: Name
    instance: Name
    """Name of the process, unique among the processes of all services."""
    version: Name | None = None
    """Version of the service (`BUS_SERVICE_VERSION`)."""
    started: Milliseconds
    """Start of the process, in milliseconds since the epoch."""
    state: Literal["starting", "ready", "not-ready", "draining"]
    """`draining` if the process is stopping, and only finishes running handlers."""
    left_out: Count = 0
    """Number of entries that the answer does not contain, because it would be too large."""
    store: Name | None = None
    """Random id of the durable store of the process. None without a durable store."""
    flooded: bool = False
    """True if questions to the instance could be lost in the last minute, because it was flooded.

    The answer to INFO does not have this field.
    """


class ContractInfo(Record):
    """A contract that an instance serves or subscribes to."""

    type: Name
    """Type on the wire, for example `transcription.get.v1`."""
    kind: Kind
    permission: Name
    queue: Name
    subscription: Name | None = None
    digest: Name
    """SHA-256 of the JSON Schema of the payload, in hexadecimal."""
    reply_digest: Name | None = None
    """SHA-256 of the JSON Schema of the reply. None if the contract has no reply."""


class InstanceInfo(InstanceState):
    """The answer to INFO."""

    bus_version: Name
    """Version of this library."""
    python_version: Name
    contracts: Annotated[tuple[ContractInfo, ...], Field(max_length=MAX_HANDLERS)] = ()


class ErrorInfo(Record):
    """The last error of a handler. It has no text, because a text can be confidential."""

    code: Text
    at: Milliseconds
    """Milliseconds since the epoch."""
    place: Text | None = None
    """File, line and function that raised the error."""


class CandidateInfo(Record):
    """A poison candidate: a message that may have ended an earlier process."""

    id: Text
    """Id of the message, cut after 64 characters."""
    lost_deliveries: Count
    """The broker's count of deliveries that ended with their process or connection."""
    running: bool
    """True if the message is processed alone now. False if running messages must end before."""


class PauseInfo(Record):
    """The pause of a consumer that an operator has requested."""

    by: Name
    """Operator."""
    reason: Text
    at: Milliseconds
    """Time of the request, in milliseconds since the epoch."""
    until: Milliseconds | None = None
    """End of the pause, in milliseconds since the epoch. None: until an operator resumes it."""
    stored: bool = False
    """True if the store keeps the pause, so instances that start later are paused, too."""


class HandlerState(Record):
    """The state of one handler in one process at this moment."""

    operation: Name
    """Name of the contract without its version, for example `transcription.get`."""
    version: Count
    kind: Kind
    queue: Name
    subscription: Name | None = None
    slots: Count
    free: Count
    """Slots without a message."""
    in_flight: Count
    """Messages that were received and are not settled."""
    oldest_seconds: Seconds | None = None
    """Seconds for which the oldest message has been in the handler. None if no message is."""
    full_seconds: Seconds | None = None
    """Seconds for which all slots have had the same messages. None unless all have one."""
    timeout: Seconds | None = None
    """Maximum seconds of the handler for one message. None: no limit."""
    pauses: Annotated[tuple[Name, ...], Field(max_length=MAX_LABELS)] = ()
    """Reasons why the consumer is paused, for example `poison-isolation`."""
    operator_pause: PauseInfo | None = None
    """Pause of an operator. Earlier versions of the bus omit it."""
    candidate: CandidateInfo | None = None
    """The message of this handler that is processed alone, or that is the next one."""
    ready: bool = True
    """True if the consumer is registered at the broker."""
    last_error: ErrorInfo | None = None
    last_handled: Milliseconds | None = None
    """Time of the last handled message, in milliseconds since the epoch."""


class Series(Record):
    """The values of one instrument with one set of labels, since the start of the process."""

    name: Name
    """Name of the instrument."""
    labels: Annotated[dict[Name, Text], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)
    value: Amount = 0
    """Total of a counter, value of a gauge, or sum of a histogram."""
    recent_value: Amount = 0
    """As `value` of a counter, for the last 1 to 2 minutes only. 0 for other instruments."""
    latest_value: Amount = 0
    """As `recent_value`, for the last 10 to 20 seconds only."""
    count: Count = 0
    """Number of values in a histogram."""
    max: Seconds = 0
    """Largest value in a histogram."""
    buckets: Histogram = Field(default_factory=dict)
    """Number of values in each bucket of a histogram that is not empty, by the bucket's index."""
    recent: Histogram = Field(default_factory=dict)
    """As `buckets`, for the last 1 to 2 minutes only."""
    recent_max: Seconds = 0
    """Largest value of the last 1 to 2 minutes."""
    exemplars: Annotated[dict[Bucket, Exemplar], Field(max_length=len(BOUNDS) + 1)] = Field(
        default_factory=dict
    )
    """Trace id, value, and time in milliseconds of one value in each bucket, by the index."""
    last: Milliseconds = 0
    """Time of the last report, in milliseconds since the epoch."""


class InstanceStats(InstanceState):
    """The answer to STATS."""

    since: Milliseconds
    """Begin of the measurements, in milliseconds since the epoch."""
    handlers: Annotated[tuple[HandlerState, ...], Field(max_length=MAX_HANDLERS)] = ()
    series: Annotated[tuple[Series, ...], Field(max_length=MAX_SERIES)] = ()
    breakers: Annotated[tuple[BreakerInfo, ...], Field(max_length=MAX_BREAKERS)] = ()
    """Circuit breakers that are open, half-open or isolated now."""
    chaos: Annotated[tuple[Text, ...], Field(max_length=MAX_LABEL_SETS)] = ()
    """Faults that a chaos experiment injects now, one line for each rule. Usually empty."""

    @model_validator(mode="after")
    def _check_label_sets(self) -> Self:
        counts = Counter([each.name for each in self.series])
        # One more series has the values of all further label sets.
        if max(counts.values(), default=0) > MAX_LABEL_SETS + 1:
            raise ValueError(f"an instrument has more than {MAX_LABEL_SETS + 1} label sets")
        return self


class ProcessStats(Record):
    """The reports of all services in one process, which its parent reads (`bus run`)."""

    pid: Count
    instances: tuple[InstanceStats, ...] = ()


class RememberedMessage(Record):
    """A message that an instance sent or handled. It has no payload and no text of an error."""

    action: Literal["sent", "running", "handled", "retried", "dead-lettered", "refused"]
    """`running` if the handler has not ended. `seconds` is then the time since its start."""
    id: Text
    type: Text
    source: Text
    at: Milliseconds
    """Begin of the action, in milliseconds since the epoch."""
    seconds: Seconds = 0
    attempt: Count = 1
    outcome: Text = "ok"
    """`ok`, or the code of an error."""
    correlation_id: Text = ""
    causation_id: Text | None = None
    traceparent: Text | None = None
    queue: Text | None = None
    tier: Text | None = None
    """Retry tier in which a retried message waits."""
    lost_deliveries: Count = 0
    """Deliveries that ended with their process or connection before. 0 if there is at most one."""


class RememberedMessages(InstanceState):
    """The answer to the question for the messages of one correlation id."""

    since: Milliseconds
    """Time from which on all messages are remembered, in milliseconds since the epoch."""
    remembered: Count = 0
    """Number of all messages that the instance remembers."""
    messages: Annotated[tuple[RememberedMessage, ...], Field(max_length=MAX_MESSAGES)] = ()
