"""Signature of messages that are sent."""

from collections.abc import Awaitable

from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.security.signer import Signer

__all__ = ["sign"]


def sign(signer: "Signer") -> Middleware:
    """Sign each message. This layer is the innermost, so each attempt gets a new signature.

    Args:
        signer: Signer with the private key of this service.
    """

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return inner(signer.sign(envelope))

        return call

    return layer
