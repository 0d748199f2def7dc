"""An incoming message in the form that the inbound stages use, and the result of its handling."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bus.messaging.dependency_wait import DEPENDENCY_RETURNS
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FIRST_FAILED, REPLAYS
from bus.messaging.ports.store import Transaction
from bus.messaging.ports.transport import Delivery
from bus.messaging.resilience.circuit_breaker import Permit
from bus.runtime.consumer_cancellation import AckHold
from bus.runtime.poison_isolation import PoisonCandidate
from bus.runtime.slots import Slots

__all__ = [
    "HOLD",
    "NO_ACTION",
    "REQUEUE",
    "SETTLED",
    "DependencyReturn",
    "HandlingResult",
    "InboundHandler",
    "InboundMessage",
    "InboundStage",
    "RedeliveryKey",
    "immediately",
    "pass_through",
]

Repeats = str | int | tuple[str | int, str | int]
RETURNED = (REPLAYS, FIRST_FAILED, DEPENDENCY_RETURNS)
"""Headers of a message that can have returned after an attempt. Its number can still be 1."""
RedeliveryKey = tuple[str, str, int, Repeats, int]
"""(sender, message id, attempt, replay count, collision number).

A retry or a replay gets a new key. A redelivery keeps the key. If the message has returned while a
dependency was down, the number of returns is beside the replay count. So a return gets a new key,
too. The collision number separates different messages that have the same id.
"""


class InboundMessage:
    """One message while it is handled.

    If the broker redelivers the message in that time, this object also holds the redeliveries.
    """

    __slots__ = (
        *("_hold", "candidate", "deliveries", "envelope", "free_since", "is_settling", "key"),
        *("payload", "permit", "result", "slots", "started", "transaction"),
    )

    def __init__(self, delivery: Delivery, hold: AckHold | None = None) -> None:
        """Create the message of a delivery. `hold` delays its ack. None delays nothing."""
        self._hold = hold
        envelope = delivery.envelope
        headers = envelope.headers
        self.envelope = envelope
        """The message as received. It stays encrypted, because retries and dead letters copy it."""
        self.payload = envelope
        """The decrypted message that the handler receives."""
        self.deliveries = [delivery]
        self.key: RedeliveryKey = (
            envelope.source,
            envelope.id,
            envelope.attempt,
            headers.get(REPLAYS, 0)
            if DEPENDENCY_RETURNS not in headers
            else (headers.get(REPLAYS, 0), headers[DEPENDENCY_RETURNS]),
            0,
        )
        self.candidate: PoisonCandidate | None = None
        """None if the message is not processed alone."""
        self.permit: Permit | None = None
        """Permit of the breaker of the dependency. None if the handler needs no permit."""
        self.result: HandlingResult | None = None
        """Result that replaces the handling, if the sender is authenticated."""
        self.slots: Slots | None = None
        """The semaphore of the slot that the message holds. None if the message holds no slot."""
        self.free_since: float | None = None
        """Time since which a slot had been free when the message took one, by the loop's clock.

        None if no slot was free.
        """
        self.is_settling = False
        """True after the handling has ended, while its result is sent."""
        self.started: float | None = None
        """Start of the handler by `time.perf_counter`. None if the handler does not run."""
        self.transaction: Transaction | None = None
        """Transaction of the handler. None if the handler is not transactional."""

    @property
    def is_deferred(self) -> bool:
        """True while the message waits to be processed alone."""
        return self.candidate is not None and self.candidate.is_waiting

    @property
    def is_repeated(self) -> bool:
        """True if a handler may have begun an earlier delivery or attempt of the message."""
        headers = self.envelope.headers
        has_returned = any(name in headers for name in RETURNED)
        return self.envelope.attempt > 1 or has_returned or self.deliveries[0].redelivered

    @property
    def copies(self) -> int:
        """Number of copies of the message that are handled together.

        The broker redelivers a copy only after the channel of its last delivery was closed.
        """
        return sum(delivery.is_open for delivery in self.deliveries)

    @property
    def lost_deliveries(self) -> int:
        """The broker's count of lost deliveries. 0 if the message is not processed alone."""
        return 0 if self.candidate is None else self.candidate.losses

    async def ack(self) -> bool:
        """Ack every delivery. Return True if the broker received at least one of these acks."""
        if self._hold is not None:
            await self._hold.wait()
        acked = False
        for delivery in self.deliveries:  # a redelivery can be added during the loop
            acked |= await delivery.ack()
        return acked

    async def requeue(self, *, counts: bool = False) -> None:
        """Return every delivery to the broker. If `counts`, count it toward the delivery limit."""
        for delivery in self.deliveries:  # a redelivery can be added during the loop
            await delivery.requeue(counts=counts)

    async def reject(self) -> bool:
        """Reject every delivery, so that the broker dead-letters it.

        Returns:
            False if the channel of each delivery was closed. The broker delivers the message again.
        """
        if self._hold is not None:
            await self._hold.wait()
        rejected = False
        for delivery in self.deliveries:  # a redelivery can be added during the loop
            rejected |= await delivery.reject()
        return rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyReturn:
    """Decision to return an event or job by a retry tier, with its attempt unchanged."""

    dependency: str
    """Name of the dependency that is down."""
    tier: str
    """Retry tier."""
    is_failure_counted: bool = False
    """True if the handler failed while the breaker of the dependency was closed."""
    is_reported: bool = False
    """True if the submitter of a job learns about the wait."""


# Not frozen, because creating a frozen dataclass takes longer than the rest of the settlement.
@dataclass(slots=True, kw_only=True)
class HandlingResult:
    """The result of one attempt to handle a message."""

    reply: Envelope | None = None
    error: BaseException | None = None
    unauthorized: bool = False
    """True if the message was rejected because its sender is unknown or has no right to send it."""
    waits: bool = False
    """True if a rejected event or job waits once in a retry tier for a new key or grant."""
    has_run: bool = False
    """True if a handler may have begun the message. The service activator sets it.

    An error of a message that no handler has begun tells the caller so.
    """
    is_repeated: bool = False
    """True if a handler may have begun an earlier delivery or attempt. The settler sets it."""
    copies: int = 1
    """Number of copies of a request that its error reply answers. The settler sets it."""
    traceparent: str | None = None
    """Span of this attempt. None if no span was recorded."""
    is_counted: bool = False
    """True if the meter has counted this error. A redelivery can return the result again."""
    dependency_return: DependencyReturn | None = None
    """Decision about a message that waits for a dependency. It replaces the retry policy."""
    held_seconds: float = 0.0
    """Seconds for which this process has held the message while a dependency was down."""
    is_committed: bool = False
    """True if the transaction of the handler has written the end of a durable job."""
    is_stale: bool = False
    """True if the handler has run, but another process has taken its message over."""


SETTLED = HandlingResult()
"""The result of a message that needs only an ack."""
REQUEUE = HandlingResult()
"""The result of a message that was not handled, and is requeued for another consumer.

A stage after `deduplicate` must not return this result, because `deduplicate` records each message
without an error as handled.
"""
HOLD = HandlingResult()
"""The result of a message that has not begun, because its permit is void. `hold_for_dependency`
holds the message again."""
NO_ACTION = HandlingResult()
"""The result of a delivery that needs no settlement. Either an earlier delivery of the message is
still being handled, and is settled together with this delivery. Or the broker will deliver the
message again."""

InboundHandler = Callable[[InboundMessage], Awaitable[HandlingResult]]
"""A function that handles an inbound message."""
InboundStage = Callable[[InboundHandler], InboundHandler]
"""A layer around an `InboundHandler`. Unlike a `Middleware`, this layer can ack and requeue."""


async def immediately(result: HandlingResult) -> HandlingResult:
    """Return `result`. A stage calls this instead of the next stage, to end the handling."""
    return result


def pass_through(handler: InboundHandler) -> InboundHandler:
    """Return `handler` unchanged. Endpoints that do not need a stage use this function instead."""
    return handler
