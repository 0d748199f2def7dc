"""All instruments that the bus reports to its meter.

Names of metrics, columns of tables and queries of dashboards are derived from this list. The labels
`service` and `instance` are not in the list, because they are the same for a whole process.
"""

from typing import Final

from bus.messaging.ports.meter import Instrument
from bus.messaging.store_instruments import STORE_INSTRUMENTS

__all__ = [
    "BREAKER_CHANGES",
    "BREAKER_STATE",
    "BULKHEAD_IN_FLIGHT",
    "BULKHEAD_WAITING",
    "CACHE_LOOKUPS",
    "CALLS_HEDGED",
    "CALLS_REJECTED",
    "CALLS_RETRIED",
    "CHAOS_FAULTS",
    "CONNECTIONS_LOST",
    "CONSUMERS_PAUSED",
    "DEAD_LETTERS",
    "DUPLICATES",
    "FALLBACKS",
    "HANDLED",
    "HANDLER_SECONDS",
    "INSTRUMENTS",
    "IN_FLIGHT",
    "READY",
    "RETRIES",
    "RETRY_BUDGET_TOKENS",
    "SEND_SECONDS",
    "SENT",
    "SHED",
    "SLOTS",
    "SLOTS_FREE",
    "STALE_COMMITS",
    "START_DELAY_SECONDS",
]

SENT_LABELS = ("operation", "version", "kind")
HANDLED_LABELS = (*SENT_LABELS, "subscription")
"""Labels of a handler. `subscription` is empty unless the subscription of an event has a name."""

SENT: Final = Instrument(
    name="messages.sent",
    kind="counter",
    unit="1",
    description="Requests, events and jobs that this service sent, by outcome.",
    labels=(*SENT_LABELS, "outcome"),
)
"""`outcome` is `ok`, or the code of the error that the caller received."""
SEND_SECONDS: Final = Instrument(
    name="messages.send.duration",
    kind="histogram",
    unit="s",
    description="Time until the reply to a request, or until the confirm of an event or job.",
    labels=SENT_LABELS,
)
HANDLED: Final = Instrument(
    name="messages.handled",
    kind="counter",
    unit="1",
    description="Attempts to handle a message, by caller and outcome.",
    labels=(*HANDLED_LABELS, "caller", "outcome"),
)
"""`outcome` is `ok` or an error code. `caller` is the verified sender, or `unverified`.

With `BUS_AUTH=off` no sender is verified, and `caller` is the name that the sender gives.
"""
HANDLER_SECONDS: Final = Instrument(
    name="messages.handler.duration",
    kind="histogram",
    unit="s",
    description="Duration of one attempt to handle a message.",
    labels=HANDLED_LABELS,
)
START_DELAY_SECONDS: Final = Instrument(
    name="messages.start.delay",
    kind="histogram",
    unit="s",
    description="Time from the publish of a message to the start of its first attempt.",
    labels=HANDLED_LABELS,
)
RETRIES: Final = Instrument(
    name="messages.retried",
    kind="counter",
    unit="1",
    description="Failed attempts after which a message entered a retry tier.",
    labels=(*HANDLED_LABELS, "outcome"),
)
DEAD_LETTERS: Final = Instrument(
    name="messages.dead_lettered",
    kind="counter",
    unit="1",
    description="Messages that this service moved to a dead-letter queue.",
    labels=(*HANDLED_LABELS, "outcome"),
)
DUPLICATES: Final = Instrument(
    name="messages.duplicates",
    kind="counter",
    unit="1",
    description="Copies that were not handled, because their message had been handled.",
    labels=HANDLED_LABELS,
)
STALE_COMMITS: Final = Instrument(
    name="messages.stale_commits",
    kind="counter",
    unit="1",
    description="Discarded transactions of handlers, because another process has the message.",
    labels=HANDLED_LABELS,
)
SHED: Final = Instrument(
    name="messages.shed",
    kind="counter",
    unit="1",
    description="Requests that were refused before their handler started, by caller and reason.",
    labels=(*HANDLED_LABELS, "caller", "reason"),
)
"""`reason` is `deadline`, `criticality` or `age` (overload), or `rate` (the caller's rate limit).

`caller` is the verified sender, or `unverified`, as in `messages.handled`.
"""
IN_FLIGHT: Final = Instrument(
    name="messages.in_flight",
    kind="gauge",
    unit="1",
    description="Messages that this process received and has not settled.",
    labels=HANDLED_LABELS,
)
SLOTS: Final = Instrument(
    name="handler.slots",
    kind="gauge",
    unit="1",
    description="Messages that the handler can process at the same time in this process.",
    labels=HANDLED_LABELS,
)
SLOTS_FREE: Final = Instrument(
    name="handler.slots.free",
    kind="gauge",
    unit="1",
    description="Slots of the handler without a message.",
    labels=HANDLED_LABELS,
)
READY: Final = Instrument(
    name="ready",
    kind="gauge",
    unit="1",
    description="1 if every consumer of this process is registered at the broker, else 0.",
    labels=(),
)
CONNECTIONS_LOST: Final = Instrument(
    name="connections.lost",
    kind="counter",
    unit="1",
    description="Losses of the connection that carries requests and replies.",
    labels=(),
)
CONSUMERS_PAUSED: Final = Instrument(
    name="consumers.paused",
    kind="gauge",
    unit="1",
    description="1 if an operator has paused the consumer, else 0.",
    labels=HANDLED_LABELS,
)
CALL_LABELS = ("operation", "version")
"""Labels of the requests that this service sends to one operation."""
CALLS_RETRIED: Final = Instrument(
    name="calls.retried",
    kind="counter",
    unit="1",
    description="Requests that this service sent again after an error of the called service.",
    labels=CALL_LABELS,
)
CALLS_HEDGED: Final = Instrument(
    name="calls.hedged",
    kind="counter",
    unit="1",
    description="Second copies of requests that had no reply in time.",
    labels=CALL_LABELS,
)
CALLS_REJECTED: Final = Instrument(
    name="calls.rejected",
    kind="counter",
    unit="1",
    description="Attempts that a policy of this service did not let through, by policy.",
    labels=(*CALL_LABELS, "policy"),
)
"""`policy` is `breaker`, `bulkhead` or `budget`."""
CACHE_LOOKUPS: Final = Instrument(
    name="cache.lookups",
    kind="counter",
    unit="1",
    description="Requests of this service with replies that can be kept, by outcome.",
    labels=(*CALL_LABELS, "outcome"),
)
"""`outcome` is `hit` for a kept reply, `joined` for the call of an equal request, or `miss`."""
FALLBACKS: Final = Instrument(
    name="fallbacks",
    kind="counter",
    unit="1",
    description="Failed requests for which the caller received its fallback.",
    labels=CALL_LABELS,
)
RETRY_BUDGET_TOKENS: Final = Instrument(
    name="retry_budget.tokens",
    kind="gauge",
    unit="1",
    description="Retries and hedges that this process can send to a service now.",
    labels=("destination",),
)
BULKHEAD_IN_FLIGHT: Final = Instrument(
    name="bulkhead.in_flight",
    kind="gauge",
    unit="1",
    description="Requests of this process to a service that wait for a reply.",
    labels=("destination",),
)
BULKHEAD_WAITING: Final = Instrument(
    name="bulkhead.waiting",
    kind="gauge",
    unit="1",
    description="Requests of this process to a service that wait until they may be sent.",
    labels=("destination",),
)

CHAOS_FAULTS: Final = Instrument(
    name="chaos.faults",
    kind="counter",
    unit="1",
    description="Faults that a chaos experiment injected into handled messages.",
    labels=("operation", "fault"),
)
"""`fault` is `latency`, `error`, `drop-reply` or `duplicate`."""
BREAKER_STATE: Final = Instrument(
    name="breaker.state",
    kind="gauge",
    unit="1",
    description="State of a circuit breaker: 0 closed, 1 half-open, 2 open, 3 isolated.",
    labels=("name", "kind"),
)
"""`name` is the type of an operation or the name of a dependency, by `kind`."""
BREAKER_CHANGES: Final = Instrument(
    name="breaker.changes",
    kind="counter",
    unit="1",
    description="Changes of a circuit breaker to a state.",
    labels=("name", "kind", "state"),
)

INSTRUMENTS: Final = (
    *(SENT, SEND_SECONDS, HANDLED, HANDLER_SECONDS, START_DELAY_SECONDS),
    *(RETRIES, DEAD_LETTERS, DUPLICATES, STALE_COMMITS, SHED),
    *(IN_FLIGHT, SLOTS, SLOTS_FREE, READY, CONNECTIONS_LOST),
    CONSUMERS_PAUSED,
    *(BREAKER_STATE, BREAKER_CHANGES),
    *(CHAOS_FAULTS,),
    *(CALLS_RETRIED, CALLS_REJECTED, RETRY_BUDGET_TOKENS),
    *(CALLS_HEDGED, CACHE_LOOKUPS, FALLBACKS),
    *(BULKHEAD_IN_FLIGHT, BULKHEAD_WAITING),
    *STORE_INSTRUMENTS,
)
