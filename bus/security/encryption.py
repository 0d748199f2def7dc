"""Payload encryption, for payloads that not even the broker's disks may show.

In place of the payload stands a sealed one, which is JSON as any payload (`bus.security.jwe`). It is bound to a digest of what makes the message
this one, and is good for no other message. It is encrypted first and signed then.
"""

import hashlib
import json
from typing import Protocol

from bus.contracts.contract import CATALOG, Catalog
from bus.errors import ConfigurationError, FailedPrecondition, Unavailable, Undecodable
from bus.messaging.envelope import ERROR_TYPE, PROGRESS_SUFFIX, REPLY_SUFFIX, Envelope

__all__ = [
    "ENCRYPTION",
    "NO_ENCRYPTION",
    "DecryptionFailed",
    "EncryptionKeys",
    "PayloadCipher",
    "UnknownEncryptionKey",
]

ENCRYPTION, JWE = "encryption", "jwe"
"""The header that says of a payload that it is encrypted, and how."""


class UnknownEncryptionKey(Exception):
    """Sealed with a key that is not in the ring."""


class DecryptionFailed(Exception):
    """Not sealed, not for this context, or changed since."""


class EncryptionKeys(Protocol):
    """The keys; each value that is sealed is bound to a context, without which it does not open."""

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """`plain`, sealed."""
        ...

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed for `context`; raises `NotOurs` or `Unreadable`."""
        ...


class PayloadCipher:
    """Encrypts and decrypts the payloads that are to be, for one service."""

    def __init__(
        self,
        ring: EncryptionKeys | None = None,
        *,
        everything: bool = False,
        catalog: Catalog = CATALOG,
    ) -> None:
        """`everything`: whether also what no contract wants encrypted is. Without a ring what should be is refused."""
        self._ring = ring
        self._everything = everything
        self._catalog = catalog
        self._wanted: dict[str, bool] = {ERROR_TYPE: False}

    def is_encrypted(self, type_: str) -> bool:
        """Whether messages of this type, replies and progress included, are encrypted. Error replies are not: no payload is in them."""
        wanted = self._wanted.get(type_)
        if wanted is None:
            contract = self._catalog.get(
                type_.removesuffix(REPLY_SUFFIX).removesuffix(PROGRESS_SUFFIX)
            )
            if contract is None:
                return self._everything  # not kept: strangers choose types, too
            wanted = self._wanted[type_] = self._everything or contract.encrypted
        return wanted

    def check_keys(self, type_: str) -> None:
        """Raises `ConfigurationError` where messages of this type could not be read here."""
        if self._ring is None and self.is_encrypted(type_):
            raise ConfigurationError(
                f"{type_} comes encrypted, and there is no key to read it; set BUS_ENCRYPTION_KEYS"
            )

    def encrypt(self, envelope: Envelope) -> Envelope:
        """The message as it may be sent. `FailedPrecondition` where it has to be encrypted and there is no key."""
        if not self.is_encrypted(envelope.type):
            return envelope
        if self._ring is None:
            raise FailedPrecondition(
                f"{envelope.type} is sent encrypted only, and there is no key; set BUS_ENCRYPTION_KEYS"
            )
        body = self._ring.encrypt(envelope.body, _identity(envelope))
        return envelope.replace(body=body, headers={**envelope.headers, ENCRYPTION: JWE})

    def decrypt(self, envelope: Envelope) -> Envelope:
        """The message with its payload.

        Raises `Undecodable` for what is no ciphertext of this very message, and for what had to be one and is not;
        `Unavailable` where its key is not here, or not yet.
        """
        if ENCRYPTION not in envelope.headers:
            if self.is_encrypted(envelope.type):
                raise Undecodable(
                    f"{envelope.type}: it came unencrypted, and is taken encrypted only"
                )
            return envelope
        if envelope.headers[ENCRYPTION] != JWE:
            raise Undecodable(f"{envelope.type}: it is encrypted in a way that is not known here")
        body = self._decrypt(envelope)
        return envelope.replace(
            body=body,
            headers={name: value for name, value in envelope.headers.items() if name != ENCRYPTION},
        )

    def _decrypt(self, envelope: Envelope) -> bytes:
        """Errors are raised outside of the handlers: what is in the other errors is no context of these."""
        try:
            if self._ring is not None:
                return self._ring.decrypt(envelope.body, _identity(envelope))
            ours = False
        except UnknownEncryptionKey:
            ours = False
        except DecryptionFailed:
            ours = True
        if ours:
            raise Undecodable(
                f"{envelope.type}: its payload is not what was encrypted for this message"
            )
        raise Unavailable(
            f"{envelope.type}: it is encrypted with a key that is not here; add it to BUS_ENCRYPTION_KEYS"
        )


NO_ENCRYPTION = PayloadCipher()
"""Where there are no keys: what has to be encrypted is refused."""


def _identity(envelope: Envelope) -> bytes:
    """SHA-256 of what makes the message this one, and stays the same in its retries, dead letter and replays."""
    attributes = [
        envelope.id,
        envelope.type,
        envelope.source,
        envelope.correlation_id,
        envelope.in_reply_to,
    ]
    return hashlib.sha256(json.dumps(attributes, separators=(",", ":")).encode()).digest()
