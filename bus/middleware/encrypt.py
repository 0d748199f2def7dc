"""Payload encryption of what is sent."""

from collections.abc import Awaitable

from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.security.encryption import PayloadCipher

__all__ = ["encrypt"]


def encrypt(cipher: PayloadCipher) -> Middleware:
    """Encrypt payloads that are to be. Next to `sign`, which signs what is sent: each attempt has a data key of its own."""

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return inner(cipher.encrypt(envelope))

        return call

    return layer
