"""Signature of what is sent."""

from collections.abc import Awaitable

from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.security.signer import Signer

__all__ = ["sign"]


def sign(signer: "Signer") -> Middleware:
    """Sign what is sent. Innermost, so that each attempt carries fresh proof."""

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return inner(signer.sign(envelope))

        return call

    return layer
