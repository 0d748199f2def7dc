"""Payload encryption of what is sent."""

from collections.abc import Awaitable

from bus.encryption import Cipher
from bus.envelope import Envelope
from bus.handler import Handler, Middleware

__all__ = ["seal"]


def seal(cipher: Cipher) -> Middleware:
    """Encrypt payloads that are to be. Next to `sign`, which signs what is sent: each attempt has a data key of its own."""

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return inner(cipher.seal(envelope))

        return call

    return layer
