"""Encryption of payloads that must not be readable on the broker's disks.

The encrypted payload is JSON, like every payload (`bus.security.jwe`). The encryption includes a
digest of the attributes that identify the message. If an attacker copies the payload into another
message, the decryption fails. The bus encrypts a message first, and then signs it.
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
"""Name and value of the header that marks an encrypted payload.

The value names the encryption method.
"""


class UnknownEncryptionKey(Exception):
    """The payload was encrypted with a key that this service does not have."""


class DecryptionFailed(Exception):
    """The payload is not encrypted, was encrypted with a different context, or was changed.

    The text is the reason if the payload is malformed, and otherwise empty.
    """


class EncryptionKeys(Protocol):
    """The keys that encrypt and decrypt payloads.

    The context identifies the message that contains the payload. Decryption requires the same
    context as encryption.
    """

    @property
    def newest_id(self) -> str:
        """Id of the key that encrypts."""
        ...

    def key_of(self, sealed: bytes) -> str:
        """Return the id of the key that `sealed` needs.

        Raises:
            DecryptionFailed: The payload is malformed.
        """
        ...

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt `plain`. Decryption requires the same `context`."""
        ...

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt `sealed`. The `context` must be the same as for the encryption.

        Raises:
            UnknownEncryptionKey: The payload was encrypted with an unknown key.
            DecryptionFailed: The payload is malformed, was changed, or was encrypted with a
                different context. The error has a reason if the payload is malformed.
        """
        ...


class PayloadCipher:
    """The cipher of one service. It encrypts and decrypts the payloads of messages."""

    def __init__(
        self,
        keys: EncryptionKeys | None = None,
        *,
        everything: bool = False,
        catalog: Catalog = CATALOG,
    ) -> None:
        """Build a cipher.

        Args:
            keys: The encryption keys. If None, a message that must be encrypted is rejected.
            everything: True if the payloads of every contract are encrypted.
            catalog: The contracts that specify which payloads are encrypted.
        """
        self._keys = keys
        self._everything = everything
        self._catalog = catalog
        self._encrypted_types: dict[str, bool] = {ERROR_TYPE: False}

    def is_encrypted(self, type_: str) -> bool:
        """Return True if the payloads of messages of this type are encrypted.

        If a type is encrypted, its replies and progress updates are encrypted. Error replies are
        not encrypted, because they have no payload.
        """
        encrypted = self._encrypted_types.get(type_)
        if encrypted is None:
            contract = self._catalog.get(
                type_.removesuffix(REPLY_SUFFIX).removesuffix(PROGRESS_SUFFIX)
            )
            if contract is None:
                # Do not cache the result: an attacker could fill the cache with invented types.
                return self._everything
            encrypted = self._encrypted_types[type_] = self._everything or contract.encrypted
        return encrypted

    def check_keys(self, type_: str) -> None:
        """Check that messages of this type can be decrypted.

        Raises:
            ConfigurationError: Messages of this type are encrypted, but this cipher has no keys.
        """
        if self._keys is None and self.is_encrypted(type_):
            raise ConfigurationError(
                f"{type_} is encrypted, but there is no key to decrypt it. Set BUS_ENCRYPTION_KEYS."
            )

    def encrypt(self, envelope: Envelope) -> Envelope:
        """Return the message. Encrypt the payload if the message's type requires encryption.

        Raises:
            FailedPrecondition: The payload must be encrypted, but this cipher has no keys.
        """
        if not self.is_encrypted(envelope.type):
            return envelope
        if self._keys is None:
            raise FailedPrecondition(
                f"{envelope.type} must be encrypted, but there is no key. Set BUS_ENCRYPTION_KEYS."
            )
        body = self._keys.encrypt(envelope.body, _identity(envelope))
        return envelope.replace(body=body, headers={**envelope.headers, ENCRYPTION: JWE})

    def decrypt(self, envelope: Envelope) -> Envelope:
        """Return the message. Decrypt the payload if the message has the `encryption` header.

        Raises:
            Undecodable: The payload was encrypted for another message, was changed, or is encrypted
                with an unknown method. Or the payload is not encrypted, but the message's type
                requires encryption.
            Unavailable: This service does not have the key that the payload was encrypted with.
        """
        if ENCRYPTION not in envelope.headers:
            if self.is_encrypted(envelope.type):
                raise Undecodable(f"{envelope.type} arrived unencrypted, but must be encrypted")
            return envelope
        if envelope.headers[ENCRYPTION] != JWE:
            raise Undecodable(f"{envelope.type} is encrypted with an unknown method")
        body = self._decrypt(envelope)
        return envelope.replace(
            body=body,
            headers={name: value for name, value in envelope.headers.items() if name != ENCRYPTION},
        )

    @property
    def newest_key(self) -> str | None:
        """Id of the key that encrypts. None without keys."""
        return None if self._keys is None else self._keys.newest_id

    def key_of(self, envelope: Envelope) -> str | None:
        """Return the id of the key that a message needs. Return None if it is not encrypted.

        Raises:
            Undecodable: The encrypted payload is malformed.
        """
        if envelope.headers.get(ENCRYPTION) != JWE or self._keys is None:
            return None
        reason = ""
        try:
            return self._keys.key_of(envelope.body)
        except DecryptionFailed as error:
            reason = str(error)
        raise Undecodable(f"{envelope.type}: the encrypted payload is invalid: {reason}")

    def reencrypt(self, envelope: Envelope) -> Envelope:
        """Return an encrypted message that is encrypted with the newest key.

        The proof of the message does not fit any more, because it signs the encrypted payload. So
        only a message that is in a store, and was authenticated before, can be encrypted again.

        Raises:
            Undecodable: The payload is malformed, or was not encrypted for this message.
            Unavailable: The cipher does not have the key that the payload was encrypted with.
        """
        plain = self._decrypt(envelope)
        if self._keys is None:
            raise FailedPrecondition(f"{envelope.type}: BUS_ENCRYPTION_KEYS is not set. Set it.")
        return envelope.replace(body=self._keys.encrypt(plain, _identity(envelope)))

    def _decrypt(self, envelope: Envelope) -> bytes:
        """Return the decrypted payload.

        The errors are raised outside the `except` blocks, so that their `__context__` is empty.
        Inside the blocks, Python would store the error of the encryption library in `__context__`,
        and that error could contain a secret.
        """
        reason = None
        try:
            if self._keys is not None:
                return self._keys.decrypt(envelope.body, _identity(envelope))
        except UnknownEncryptionKey:
            pass
        except DecryptionFailed as error:
            reason = str(error)
        if reason:
            raise Undecodable(f"{envelope.type}: the encrypted payload is invalid: {reason}")
        if reason is not None:
            raise Undecodable(f"{envelope.type}: the payload was not encrypted for this message")
        raise Unavailable(
            f"{envelope.type} is encrypted with an unknown key. Add the key to BUS_ENCRYPTION_KEYS."
        )


NO_ENCRYPTION = PayloadCipher()
"""A cipher without keys. It rejects messages that must be encrypted."""


def _identity(envelope: Envelope) -> bytes:
    """Return the SHA-256 of the attributes that identify the message.

    These attributes do not change if the message is retried, dead-lettered or replayed.
    """
    attributes = [
        envelope.id,
        envelope.type,
        envelope.source,
        envelope.correlation_id,
        envelope.in_reply_to,
    ]
    return hashlib.sha256(json.dumps(attributes, separators=(",", ":")).encode()).digest()
