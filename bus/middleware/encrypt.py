"""Encryption of payloads that are sent."""

from collections.abc import Awaitable

from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.security.encryption import PayloadCipher

__all__ = ["encrypt"]


def encrypt(cipher: PayloadCipher) -> Middleware:
    """Encrypt the payload if its contract requires that. Each attempt uses a new data key.

    This layer is directly outside `sign`, so the signature covers the encrypted payload.

    Args:
        cipher: Cipher with the encryption keys of this service.
    """

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return inner(cipher.encrypt(envelope))

        return call

    return layer
