"""What this service may not send is refused here, where its grants are known: at once, and nobody else has to."""

from collections.abc import Awaitable, Callable

from bus.contracts.contract import CATALOG, Catalog, Contract
from bus.errors import PermissionDenied
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware

__all__ = ["authorize"]


def authorize(
    refusal: Callable[[Contract], PermissionDenied | None], *, catalog: Catalog = CATALOG
) -> Middleware:
    """Send what `refusal` has nothing against; what is no contract of this process is for the receiver to judge."""

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            contract = catalog.get(envelope.type)
            error = None if contract is None else refusal(contract)
            if error is not None:
                raise error
            return inner(envelope)

        return call

    return layer
