"""Authorization: a message that this service may not send is refused before it is sent.

The service knows its own grants, so it refuses the message at once, without the receiver.
"""

from collections.abc import Awaitable, Callable

from bus.contracts.contract import CATALOG, Catalog, Contract
from bus.errors import PermissionDenied
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware

__all__ = ["authorize"]


def authorize(
    refusal: Callable[[Contract], PermissionDenied | None], *, catalog: Catalog = CATALOG
) -> Middleware:
    """Refuse to send messages that this service may not send.

    A message without a contract in this process is sent, and its receiver decides.

    Args:
        refusal: Function that returns the error for a contract, or None if sending is permitted.
        catalog: Contracts of this process.
    """

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            contract = catalog.get(envelope.type)
            error = None if contract is None else refusal(contract)
            if error is not None:
                raise error
            return inner(envelope)

        return call

    return layer
