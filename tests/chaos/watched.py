"""The bus's own transport, which writes down every delivery before the bus sees it."""

import json
from collections.abc import Callable

from typing_extensions import override

from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import ConsumerHandle, Delivery
from bus.messaging.topology.model import Queue, Topology
from bus.settings import Settings
from bus.transports.rabbitmq import RabbitMQTransport
from tests.chaos.journal import DELIVERED, Journal

__all__ = ["NOBODY", "WatchedTransport", "number_of"]

NOBODY = -1
"""The number of what is no message of a campaign."""


class WatchedTransport(RabbitMQTransport):
    """Also counts what the bus absorbs: a redelivery that has no second effect is seen here alone."""

    def __init__(self, settings: Settings, *, name: str, journal: Journal) -> None:
        super().__init__(settings, name=name)
        self._journal = journal

    @override
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
        def seen(delivery: Delivery) -> None:
            envelope = delivery.envelope
            self._journal.write(DELIVERED, number_of(envelope), f"{envelope.id} {envelope.attempt}")
            on_delivery(delivery)

        taking = seen if queue.role in {"jobs", "events"} else on_delivery
        return await super().consume(
            queue,
            topology,
            prefetch=prefetch,
            on_delivery=taking,
            acks=acks,
            consumer_timeout=consumer_timeout,
        )


def number_of(envelope: Envelope) -> int:
    """The ledger's number in a body."""
    try:
        return int(json.loads(envelope.body)["number"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return NOBODY
