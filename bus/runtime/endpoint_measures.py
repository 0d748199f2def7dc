"""The measurements of one endpoint: its reports to the meter and the history, and its last error.

Each method is called for a message, so labels are tuples that are created once.
"""

import asyncio
from dataclasses import dataclass

from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_location
from bus.messaging.instruments import (
    DEAD_LETTERS,
    DUPLICATES,
    HANDLED,
    HANDLER_SECONDS,
    RETRIES,
    START_DELAY_SECONDS,
)
from bus.messaging.outcomes import OK, outcome_of
from bus.messaging.ports.history import Action
from bus.messaging.ports.meter import Labels
from bus.messaging.sent_time import sent_time
from bus.messaging.trace_context import recorded_trace
from bus.runtime.endpoint import Endpoint
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.measure_batch import MeasureBatch
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["UNVERIFIED", "EndpointMeasures", "LastError"]

UNVERIFIED = "unverified"
"""Label `caller` of a message from a sender that is not authenticated."""
MAX_CACHED_LABELS = 500
"""Maximum number of labels that are kept. With `BUS_AUTH=off`, senders choose their own names."""
MAX_PLACE_LENGTH = 200


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
        self._batch = MeasureBatch(
            runtime.meter, HANDLED, (HANDLER_SECONDS, START_DELAY_SECONDS), self._labels
        )
        self.last_error: LastError | None = None
        self.last_handled: float | None = None
        """Time of the last message that was handled without an error, in seconds."""

    def handled(self, message: InboundMessage, error: BaseException | None, seconds: float) -> None:
        """Report an attempt that has ended.

        Args:
            message: The message. Its sender is authenticated, unless `BUS_AUTH=off`.
            error: The error of the attempt, or None.
            seconds: The duration of the attempt.
        """
        now, envelope = self._clock(), message.envelope
        if error is None:
            outcome = OK
            self.last_handled = now
        else:
            outcome = outcome_of(error)
            self._keep_error(error, outcome, now)
        key = (envelope.source, outcome)
        labels = self._handled_labels.get(key) or self._add_labels(key)
        delay = None
        # No earlier attempt can have started: neither here nor in another process.
        if envelope.attempt == 1 and not message.deliveries[0].redelivered and not message.key[3]:
            sent = sent_time(envelope)
            if sent is not None:
                delay = now - seconds - sent / 1000
                if delay < 0:  # the clocks of two machines differ
                    delay = 0.0
        trace_id = recorded_trace.get()
        if trace_id is None:
            self._batch.add(labels, seconds, now, delay)
        else:
            self._report_traced(labels, seconds, delay, trace_id)
        if self._history is not None:
            self._history.remember(
                "handled", envelope, now - seconds, seconds, outcome, queue=self._queue
            )

    def _report_traced(
        self, labels: Labels, seconds: float, delay: float | None, trace_id: str
    ) -> None:
        """Report an attempt at once, because its trace is recorded and can be an exemplar."""
        meter = self._meter
        meter.count(HANDLED, labels)
        meter.observe(HANDLER_SECONDS, self._labels, seconds, trace_id)
        if delay is not None:
            meter.observe(START_DELAY_SECONDS, self._labels, delay, trace_id)

    def refused(self, message: InboundMessage, result: HandlingResult) -> None:
        """Report a message that was rejected before its handler started."""
        result.is_counted = True
        now, outcome = self._clock(), outcome_of(result.error)
        source = UNVERIFIED if result.unauthorized else message.envelope.source
        self._meter.count(HANDLED, (*self._labels, source, outcome))
        if not result.unauthorized and result.error is not None:
            self._keep_error(result.error, outcome, now)
        self._remember("refused", message.envelope, result, outcome)

    def retried(self, envelope: Envelope, result: HandlingResult, tier: str) -> None:
        """Report that the broker has confirmed the copy of a message in a retry tier."""
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

    def _remember(
        self,
        action: Action,
        envelope: Envelope,
        result: HandlingResult,
        outcome: str,
        tier: str | None = None,
    ) -> None:
        if self._history is not None:
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

    def _add_labels(self, key: tuple[str, str]) -> Labels:
        labels = (*self._labels, *key)
        if len(self._handled_labels) < MAX_CACHED_LABELS:
            self._handled_labels[key] = labels
        return labels
