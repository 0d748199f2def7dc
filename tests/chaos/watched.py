"""The bus's own transport, with a record of every delivery before the bus receives it."""

import json
from collections.abc import Callable

from typing_extensions import override

from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import ConsumerHandle, Delivery
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.settings import Settings
from bus.transports.rabbitmq import RabbitMQTransport
from tests.chaos.journal import DELIVERED, Journal

__all__ = ["NO_NUMBER", "WatchedTransport", "number_of"]

NO_NUMBER = -1
"""Number of a message that does not belong to a campaign."""


class WatchedTransport(RabbitMQTransport):
    """A transport that records every delivery.

    A redelivery without a second effect is in no other record.
    """

    def __init__(self, settings: Settings, *, name: str, journal: Journal) -> None:
        super().__init__(settings, name=name)
        self._journal = journal

    @override
    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        def seen(delivery: Delivery) -> None:
            envelope = delivery.envelope
            self._journal.write(DELIVERED, number_of(envelope), f"{envelope.id} {envelope.attempt}")
            on_delivery(delivery)

        taking = seen if spec.queue.role in {"jobs", "events"} else on_delivery
        return await super().consume(spec, taking)


def number_of(envelope: Envelope) -> int:
    """Return the ledger's number in a body."""
    try:
        return int(json.loads(envelope.body)["number"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return NO_NUMBER
