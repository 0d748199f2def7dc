"""The port: what a transport does, and what it guarantees. One suite, `tests/conformance/`, holds every transport to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Queue, Topology

__all__ = [
    "Accepted",
    "ConsumerHandle",
    "Delivery",
    "Nacked",
    "PublishOutcome",
    "ReturnListener",
    "Returned",
    "Transport",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Confirmed sends: the broker has taken responsibility. Others: handed to the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """Mandatory, and no queue takes it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nacked:
    """The broker said no: a queue is full."""

    reason: str


PublishOutcome = Accepted | Returned | Nacked


class Delivery(Protocol):
    """One message as it was delivered to one consumer."""

    @property
    def envelope(self) -> Envelope:
        """The message, with `received`, `queue` and, where it is malformed, `fault` set."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether the broker delivered it before, to this or another consumer. A hint: it says nothing of what came of that."""
        ...

    @property
    def broker_headers(self) -> Mapping[str, Any]:
        """The headers whose names begin with `x-`, such as `x-death`: the broker's notes, which no envelope has, since no copy may.

        A client can have put them there, so nothing in them is taken to be of the right type.
        """
        ...

    async def ack(self) -> bool:
        """Done; twice is once. False where the broker may deliver it again: its channel is gone, or it was taken back meanwhile."""
        ...

    async def requeue(self) -> bool:
        """Back to the broker, for another consumer. False where the channel is gone, which has the same effect."""
        ...


class ReturnListener(Protocol):
    """Who hears of what concerns no single call."""

    def on_return(self, message_id: str, reason: str) -> None:
        """An unconfirmed mandatory message came back: no queue takes it."""
        ...

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """An unconfirmed message was written, and the broker has refused or dropped it; or may have, where `error` says so."""
        ...

    def on_connection_lost(self) -> None:
        """The connection that carries requests and replies is gone; replies under way will not come."""
        ...


class ConsumerHandle(Protocol):
    """A supervised consumer: it ends only when it is told to."""

    @property
    def name(self) -> str:
        """The queue's name."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the broker has this consumer registered now (consume-ok, and nothing since that ended it)."""
        ...

    @property
    def last_error(self) -> str | None:
        """Why it is not ready, in one line without secrets; None while nothing has gone wrong since it last was."""
        ...

    async def wait_ready(self) -> None:
        """Returns when it is ready. Callers set the limit."""
        ...

    async def cancel(self) -> None:
        """No further deliveries. What was delivered can still be acked, until `close`."""
        ...

    async def close(self) -> None:
        """Consume no more and give the channel back, within a few seconds; what is unacked goes back to the broker. Twice is once."""
        ...


class Transport(Protocol):
    """Moves envelopes.

    Recovery is the transport's: after a fault it connects, declares and consumes again by itself, with jittered
    back-off, and for ever. What it was told to do and could not is raised to the caller who waits for it.
    """

    @property
    def has_management_api(self) -> bool:
        """Whether its broker tells by RabbitMQ's management API what counts for its queues."""
        ...

    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        """Connect. Raises `Unavailable` (nobody there in `timeout` seconds) or `Unauthenticated` (at once)."""
        ...

    async def declare(self, topology: Topology) -> None:
        """Make it exist. Idempotent. `TopologyMismatch` names what exists with other arguments; `Unavailable`.

        Where others manage the broker (the setting `topology`), only look: `ConfigurationError` names what is missing.
        """
        ...

    async def depth(self, queue: str) -> int:
        """Messages that are ready in a queue now. `NotFound` where there is no such queue; `Unavailable`."""
        ...

    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        """Send one message, at least once, and say what became of it within `timeout` seconds.

        `address.confirmed`: returns after the broker's confirm. The same id may be in flight twice, and each send
        hears of its own copy. Not confirmed: returns when written; a return is told to the observer.
        `via`: on that delivery's channel while it lives, so that what is sent reaches the broker before its ack.

        Raises `Unavailable` where the message was surely not sent (no connection, a blocked one),
        `ConnectionLost(maybe_executed=True)` where the connection went before the confirm,
        `PermissionDenied` where the broker names this as what its user may not send, with `maybe_executed` where
        it may have meant another that went there, and
        `DeadlineExceeded(maybe_executed=…)` where the time was up before, or after, it was written.
        """
        ...

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        """Whether the broker leaves a message of this queue with its consumer for as long as that says. Ask it once it is connected."""
        ...

    async def consume(
        self,
        queue: Queue,
        topology: Topology,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        acks: bool = True,
        consumer_timeout: float | None = None,
    ) -> ConsumerHandle:
        """Consume, supervised, at least once; declares `topology` first, and again whenever it has to start anew.

        At most `prefetch` unacked deliveries at a time (0: no limit). `acks=False`: the broker forgets a message as it
        sends it. `patience`: seconds for which one may be held unacked, where that is heeded; else, and where it is None,
        the broker has a time of its own. `on_delivery` must not block and must not raise. Returns at once; `wait_ready` says
        when it consumes.
        """
        ...

    async def close(self) -> None:
        """Close everything within a few seconds. What is unacked is delivered again to others."""
        ...
