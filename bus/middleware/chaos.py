"""Injection of slow and failing handlers, for tests and game days."""

from collections.abc import Awaitable

from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.resilience.chaos import Chaos

__all__ = ["inject_handler_faults"]


def inject_handler_faults(chaos: Chaos) -> Middleware:
    """Wait before a handler, or raise an error instead of calling it, as the experiment decides.

    The bus adds this layer inside every server stack. So the deadline, the log line and the
    measurements of a message treat the fault as a fault of the handler.

    Args:
        chaos: Experiment of the process.
    """

    def layer(inner: Handler) -> Handler:
        async def call_with_faults(envelope: Envelope) -> Envelope | None:
            await chaos.delay(envelope.type)
            error = chaos.error(envelope.type)
            if error is not None:
                raise error
            return await inner(envelope)

        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            if chaos.experiment is None:
                return inner(envelope)
            return call_with_faults(envelope)

        return call

    return layer
