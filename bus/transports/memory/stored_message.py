"""A message in a queue of the model broker, and the headers that dead-lettering adds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bus.transports.wire_format import AmqpMessage

__all__ = ["StoredMessage", "died", "in_cycle"]

Reason = Literal["expired", "rejected", "maxlen", "delivery_limit"]


@dataclass(slots=True, kw_only=True, eq=False)
class StoredMessage:
    """One copy of a message in one queue."""

    wire: AmqpMessage
    exchange: str
    routing_key: str
    position: int = 0
    """Sequence number of the message in its queue."""
    returns: int = 0
    """Number of times that the message was requeued. It is the delivery count of a quorum queue."""
    expires_at: float | None = None
    """Time of expiry on the loop's clock, in seconds."""


def died(
    message: StoredMessage, *, queue: str, reason: Reason, routing_key: str | None, at: int
) -> StoredMessage:
    """Return the copy of a message that the broker publishes to the dead-letter exchange.

    The copy has an added or updated `x-death` record. It has no expiration, so that it does not
    expire again in the dead-letter queue.
    """
    deaths = _read_deaths(message.wire.headers)
    same = [death for death in deaths if (death["queue"], death["reason"]) == (queue, reason)]
    different = [death for death in deaths if death not in same]
    first: Mapping[str, Any] = {
        "count": 0,
        "reason": reason,
        "queue": queue,
        "time": at,
        "exchange": message.exchange,
        "routing-keys": [message.routing_key],
        **_original_expiration(message.wire),
    }
    death = same[0] if same else first
    counted = {**death, "count": death["count"] + 1}
    headers = {**message.wire.headers, "x-death": [counted, *different]}
    for name, value in (("reason", reason), ("queue", queue), ("exchange", message.exchange)):
        headers.setdefault(f"x-first-death-{name}", value)
    return StoredMessage(
        wire=replace(message.wire, headers=headers, expiration=None),
        exchange=message.exchange,
        routing_key=routing_key or message.routing_key,
    )


def in_cycle(message: StoredMessage, queue: str) -> bool:
    """Return True if a route to `queue` would be a dead-letter cycle.

    It is a cycle if `queue` has dead-lettered the message before. It is not a cycle if the message
    was rejected in `queue`, or later in another queue.

    RabbitMQ does not route a dead letter in a cycle.
    """
    deaths = _read_deaths(message.wire.headers)
    queues = [death["queue"] for death in deaths]
    if queue not in queues:
        return False
    return all(death["reason"] != "rejected" for death in deaths[: queues.index(queue) + 1])


def _original_expiration(wire: AmqpMessage) -> Mapping[str, str]:
    return {} if wire.expiration is None else {"original-expiration": wire.expiration}


def _read_deaths(headers: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the broker's `x-death` records.

    A malformed header is ignored, as in RabbitMQ, because a client must have written it.
    """
    deaths = headers.get("x-death")
    return deaths if isinstance(deaths, list) and _are_deaths(deaths) else []


def _are_deaths(deaths: Iterable[object]) -> bool:
    return all(
        isinstance(death, dict) and {"queue", "reason", "count"} <= death.keys() for death in deaths
    )
