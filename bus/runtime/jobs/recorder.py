"""The recorder of one work queue: a consumer that writes jobs to the store."""

from dataclasses import replace
from typing import Final

from bus.messaging.ports.transport import ConsumerHandle, Transport
from bus.runtime.consumer_cancellation import cancel_consumer
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.jobs.store_health import StoreHealth
from bus.runtime.receiver import Receiver

__all__ = ["RECORDER_PREFETCH", "Recorder", "recorder_state"]

RECORDER_PREFETCH: Final = 200
"""Maximum number of jobs that one recorder has received and not recorded yet."""


def recorder_state(state: EndpointState) -> EndpointState:
    """Return the state of the recorder of an endpoint. It has its own messages in flight.

    A delivery is unacked for milliseconds, so the recorder requests no consumer timeout.
    """
    spec = replace(state.spec, prefetch=RECORDER_PREFETCH, consumer_timeout=None)
    return EndpointState(
        endpoint=state.endpoint,
        spec=spec,
        runtime=state.runtime,
        guard=state.guard,
        candidates=state.candidates,
    )


class Recorder:
    """A `ConsumerHandle` of the work queue. It runs no handler, so it is never paused."""

    def __init__(self, transport: Transport, receiver: Receiver, health: StoreHealth) -> None:
        self.receiver = receiver
        """The receiver, with the messages that are not recorded yet."""
        self._transport, self._health = transport, health
        self._consumer: ConsumerHandle | None = None

    async def start(self) -> None:
        """Start to receive jobs."""
        receiver = self.receiver
        self._consumer = await self._transport.consume(receiver.state.spec, receiver.on_delivery)

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.receiver.state.spec.queue.name

    @property
    def ready(self) -> bool:
        """True if the consumer is registered at the broker, and the store is available."""
        return self._consumer is not None and self._consumer.ready and not self._health.is_away

    @property
    def last_error(self) -> str | None:
        """The reason why the consumer is not ready, or None."""
        error = None if self._consumer is None else self._consumer.last_error
        return error or self._health.problem

    async def wait_ready(self) -> None:
        """Wait until the consumer is registered."""
        if self._consumer is not None:
            await self._consumer.wait_ready()

    async def cancel(self) -> None:
        """Stop deliveries. Jobs that were delivered are still recorded and acked."""
        if self._consumer is not None:
            await cancel_consumer(self._consumer)

    async def close(self) -> None:
        """Close the consumer. The broker requeues each job that is not acked."""
        if self._consumer is not None:
            await self._consumer.close()
