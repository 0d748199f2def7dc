"""The measurements of one endpoint: its reports to the meter and the history, and its last error.

Each method is called for a message, so labels are tuples that are created once.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock

from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_location
from bus.messaging.instruments import (
    DEAD_LETTERS,
    DUPLICATES,
    HANDLED,
    HANDLER_SECONDS,
    RETRIES,
    SHED,
    STALE_COMMITS,
    START_DELAY_SECONDS,
)
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.ports.history import Action, Entry
from bus.messaging.ports.meter import Labels
from bus.messaging.sent_time import sent_time
from bus.messaging.trace_context import recorded_trace
from bus.runtime.endpoint import Endpoint
from bus.runtime.inbound_message import HandlingResult, InboundMessage, RedeliveryKey
from bus.runtime.measure_batch import MAX_SECONDS, MAX_VALUES
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["UNVERIFIED", "EndpointMeasures", "LastError"]

UNVERIFIED = "unverified"
"""Label `caller` of a message from a sender that is not authenticated."""
MAX_CACHED_LABELS = 500
"""Maximum number of labels that are kept. With `BUS_AUTH=off`, senders choose their own names."""
MAX_PLACE_LENGTH = 200

AttemptValues = tuple[
    RedeliveryKey, str, str | None, str | None, int | None, int | None, float, float, str | None
]
"""(key, correlation id, causation id, traceparent, sent, lost deliveries, end, seconds, trace id).

The lost deliveries are None if the message was not redelivered.
"""


@dataclass(frozen=True, slots=True)
class LastError:
    """The last error of a handler in this process. It has no text, which can be confidential."""

    code: str
    at: float
    """Seconds since the epoch."""
    place: str | None


class EndpointMeasures:
    """Reports what happens to the messages of one endpoint.

    The type of a message is the one of the endpoint's contract, so senders cannot add label values.
    """

    def __init__(self, endpoint: Endpoint, runtime: ServiceRuntime) -> None:
        contract = endpoint.contract
        self._labels: Labels = (
            contract.name,
            str(contract.version),
            contract.kind,
            endpoint.subscription or "",
        )
        self._handled_labels: dict[tuple[str, str], Labels] = {}
        self._queue = endpoint.queue
        self._meter = runtime.meter
        self._history = runtime.history
        self._clock = runtime.clock
        self._type = contract.type
        self._has_traces = runtime.spans is not None
        self._pending: list[AttemptValues] = []
        self._ends = 0.0
        self._lock = RLock()
        runtime.meter.report_before_read(self)
        if runtime.history is not None:
            runtime.history.report_before_read(self)
        self.last_error: LastError | None = None
        self.last_handled: float | None = None
        """Time of the last message that was handled without an error, in seconds."""

    def succeeded(self, message: InboundMessage, seconds: float) -> None:
        """Report an attempt without an error.

        Only the values are stored here, and they are reported together with those of other
        messages. Between two messages, the code of a report is not in the processor's caches.

        Args:
            message: The message. Its sender is authenticated, unless `BUS_AUTH=off`.
            seconds: The duration of the attempt.
        """
        values = self._values_of(message, seconds)
        now = values[6]
        if now >= self._ends or len(self._pending) >= MAX_VALUES:
            self.report()
            self._ends = now + MAX_SECONDS
        # Another thread can take the list away between two calls, so it is looked up last.
        self._pending.append(values)

    def failed(self, message: InboundMessage, error: BaseException, seconds: float) -> None:
        """Report an attempt that has ended with an error, with the arguments of `succeeded`."""
        values, outcome = self._values_of(message, seconds), outcome_of(error)
        with self._lock:
            self.report()
            self._count_one(values, outcome)
        if self._history is not None:
            self._history.add(self._entry_of(values, outcome))
        self._keep_error(error, outcome, values[6])

    def _values_of(self, message: InboundMessage, seconds: float) -> AttemptValues:
        envelope = message.envelope
        return (
            message.key,
            envelope.correlation_id,
            envelope.causation_id,
            envelope.traceparent,
            sent_time(envelope),
            message.lost_deliveries if message.deliveries[0].redelivered else None,
            self._clock(),
            seconds,
            recorded_trace.get() if self._has_traces else None,
        )

    def report(self) -> None:
        """Report the successful attempts that are stored."""
        # The lock is for a reader in another thread. Two threads must not change one number.
        with self._lock:
            pending, self._pending = self._pending, []
            if not pending:
                return
            self.last_handled = pending[-1][6]
            self._count_all(pending)
        if self._history is not None:
            for values in pending:
                self._history.add(self._entry_of(values, OK))

    def _count_all(self, pending: Sequence[AttemptValues]) -> None:
        """Report successful attempts to the meter, and only those with an exemplar one by one."""
        if not self._has_traces:
            self._count_many(pending)
            return
        if unsampled := [values for values in pending if values[8] is None]:
            self._count_many(unsampled)
        if len(unsampled) < len(pending):
            for values in pending:
                if values[8] is not None:
                    self._count_one(values, OK)

    def _count_many(self, pending: Sequence[AttemptValues]) -> None:
        """Report successful attempts without exemplars, with few calls."""
        meter, last = self._meter, pending[-1][6]
        for source, amount in Counter([values[0][0] for values in pending]).items():
            meter.count(HANDLED, self._labels_of(source, OK), amount, at=last)
        meter.observe_many(
            HANDLER_SECONDS, self._labels, [values[7] for values in pending], at=last
        )
        delays = [delay for values in pending if (delay := _delay_of(values)) is not None]
        if delays:
            meter.observe_many(START_DELAY_SECONDS, self._labels, delays, at=last)

    def _count_one(self, values: AttemptValues, outcome: str) -> None:
        now, seconds, trace_id = values[6:]
        meter = self._meter
        meter.count(HANDLED, self._labels_of(values[0][0], outcome), at=now)
        meter.observe(HANDLER_SECONDS, self._labels, seconds, trace_id, at=now)
        delay = _delay_of(values)
        if delay is not None:
            meter.observe(START_DELAY_SECONDS, self._labels, delay, trace_id, at=now)

    def _entry_of(self, values: AttemptValues, outcome: str) -> Entry:
        """Return the entry of an attempt in the history."""
        key, correlation, cause, traceparent, _, lost, now, seconds, _ = values
        source, message_id, attempt, _, _ = key
        return (
            "handled",
            message_id,
            self._type,
            source,
            now - seconds,
            seconds,
            attempt,
            outcome,
            correlation or message_id,
            cause,
            traceparent,
            self._queue,
            None,
            lost or 0,
        )

    def refused(self, message: InboundMessage, result: HandlingResult) -> None:
        """Report a message that was rejected before its handler started."""
        result.is_counted = True
        now, outcome = self._clock(), outcome_of(result.error)
        source = UNVERIFIED if result.unauthorized else message.envelope.source
        self._meter.count(HANDLED, (*self._labels, source, outcome))
        if not result.unauthorized and result.error is not None:
            self._keep_error(result.error, outcome, now)
        self._remember("refused", message.envelope, result, outcome)

    def retried(self, envelope: Envelope, result: HandlingResult, tier: str | None) -> None:
        """Report that a message waits for its next attempt: in a retry tier, or in the store.

        The tier is None for a durable job.
        """
        outcome = outcome_of(result.error)
        self._meter.count(RETRIES, (*self._labels, outcome))
        self._remember("retried", envelope, result, outcome, tier)

    def dead_lettered(self, envelope: Envelope, result: HandlingResult, code: str) -> None:
        """Report that a message was moved to the dead letters with the code `code`."""
        self._meter.count(DEAD_LETTERS, (*self._labels, code))
        self._remember("dead-lettered", envelope, result, code)

    def skipped(self) -> None:
        """Report a copy of a message that was already handled."""
        self._meter.count(DUPLICATES, self._labels)

    def discarded(self) -> None:
        """Report that the store refused a transaction, because another process has the message."""
        self._meter.count(STALE_COMMITS, self._labels)

    def shed(self, envelope: Envelope, reason: str, *, verified: bool = True) -> None:
        """Report a request that was refused before its handler started.

        Args:
            envelope: The request.
            reason: Why it was refused, for example `deadline`.
            verified: False if its sender is not authenticated yet.
        """
        source = envelope.source if verified else UNVERIFIED
        self._meter.count(SHED, self._labels_of(source, reason))

    def _remember(
        self,
        action: Action,
        envelope: Envelope,
        result: HandlingResult,
        outcome: str,
        tier: str | None = None,
    ) -> None:
        if self._history is not None:
            self.report()  # the history is in the order of time
            self._history.remember(
                action,
                envelope,
                self._clock(),
                0,
                outcome,
                queue=self._queue,
                tier=tier,
                verified=not result.unauthorized,
            )

    def _keep_error(self, error: BaseException, outcome: str, now: float) -> None:
        # A cancelled handler has not failed: its service stops, or its deadline has passed.
        if isinstance(error, asyncio.CancelledError):
            return
        place = failure_location(error)
        self.last_error = LastError(outcome, now, place and place[:MAX_PLACE_LENGTH])

    def _labels_of(self, source: str, outcome: str) -> Labels:
        key = (source, outcome)
        labels = self._handled_labels.get(key)
        if labels is None:
            labels = (*self._labels, *key)
            if len(self._handled_labels) < MAX_CACHED_LABELS:
                self._handled_labels[key] = labels
        return labels


def _delay_of(values: AttemptValues) -> float | None:
    """Return the seconds from the publish to the start of the first attempt.

    None if they are not known, or if an earlier attempt can have started, here or elsewhere.
    """
    (_, _, attempt, replays, _), _, _, _, sent, lost, now, seconds, _ = values
    if sent is None or attempt != 1 or lost is not None or replays:
        return None
    # The clocks of two machines differ, so a short delay can seem negative.
    return max(now - seconds - sent / 1000, 0.0)
