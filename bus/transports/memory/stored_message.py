"""A message as the model broker keeps it, and what dying does to it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bus.transports.wire_format import AmqpMessage

__all__ = ["StoredMessage", "died", "in_cycle"]

Reason = Literal["expired", "rejected", "maxlen", "delivery_limit"]


@dataclass(slots=True, kw_only=True, eq=False)
class StoredMessage:
    """One copy in one queue."""

    wire: AmqpMessage
    exchange: str
    routing_key: str
    position: int = 0
    """Its place in the queue's order."""
    returns: int = 0
    """How often it came back unacked; a quorum queue's delivery count."""
    expires_at: float | None = None
    """The loop's clock, in seconds."""


def died(
    message: StoredMessage, *, queue: str, reason: Reason, routing_key: str | None, at: int
) -> StoredMessage:
    """The copy that a dead-letter exchange gets: `x-death` counted up, the expiration taken off, so that it dies only once of it."""
    deaths = _deaths(message.wire.headers)
    same = [death for death in deaths if (death["queue"], death["reason"]) == (queue, reason)]
    others = [death for death in deaths if death not in same]
    first: Mapping[str, Any] = {
        "count": 0,
        "reason": reason,
        "queue": queue,
        "time": at,
        "exchange": message.exchange,
        "routing-keys": [message.routing_key],
        **_original(message.wire),
    }
    death = same[0] if same else first
    headers = {**message.wire.headers, "x-death": [{**death, "count": death["count"] + 1}, *others]}
    for name, value in (("reason", reason), ("queue", queue), ("exchange", message.exchange)):
        headers.setdefault(f"x-first-death-{name}", value)
    return StoredMessage(
        wire=replace(message.wire, headers=headers, expiration=None),
        exchange=message.exchange,
        routing_key=routing_key or message.routing_key,
    )


def in_cycle(message: StoredMessage, queue: str) -> bool:
    """Whether it went round to `queue` without a rejection on the way: RabbitMQ drops such a message."""
    deaths = _deaths(message.wire.headers)
    places = [death["queue"] for death in deaths]
    if queue not in places:
        return False
    return all(death["reason"] != "rejected" for death in deaths[: places.index(queue) + 1])


def _original(wire: AmqpMessage) -> Mapping[str, str]:
    return {} if wire.expiration is None else {"original-expiration": wire.expiration}


def _deaths(headers: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The broker's own records; anything else under that name was put there by a client and is reset, as RabbitMQ does."""
    deaths = headers.get("x-death")
    return deaths if isinstance(deaths, list) and _records(deaths) else []


def _records(deaths: Iterable[object]) -> bool:
    return all(
        isinstance(death, dict) and {"queue", "reason", "count"} <= death.keys() for death in deaths
    )
