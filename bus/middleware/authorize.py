"""Authorization: the sender rejects a message for which its service has no grant.

The sender checks its own grants, so a rejected message never reaches the broker.
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
    """Reject a message for which this service has no grant.

    If this process has no contract for a message, the message is sent and the receiver checks it.

    Args:
        refusal: Function that receives a contract. It returns the error to raise, or None if
            sending is permitted.
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
