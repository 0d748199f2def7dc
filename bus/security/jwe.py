"""Payload encryption by JSON Web Encryption (RFC 7516, flattened JSON serialization).

A new data key encrypts each payload (A256GCM), and an encryption key wraps the data key (A256KW).
The module is imported only if `BUS_ENCRYPTION_KEYS` is set.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any, cast

from joserfc import jwe, jwk
from joserfc.errors import JoseError, SecurityWarning
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from bus.errors import ConfigurationError
from bus.messaging.body_limit import HIGHEST_MAX_BODY_BYTES
from bus.security.encryption import DecryptionFailed, UnknownEncryptionKey

__all__ = ["JweKeys", "new_encryption_key", "read_encryption_keys"]

WRAPPING, CONTENT = "A256KW", "A256GCM"
KEY_BITS = 256
MEMBERS = frozenset({"protected", "iv", "ciphertext", "tag", "aad", "header", "encrypted_key"})
"""Permitted members of an encrypted payload.

Other members of RFC 7516 are rejected, because they change how the payload is decrypted.
"""


class Registry(jwe.JWERegistry):
    """The rules for joserfc: two algorithms, no compression, one recipient."""

    max_ciphertext_length = HIGHEST_MAX_BODY_BYTES
    """Maximum length of the ciphertext. The setting `max_message` limits the body before this."""


REGISTRY = Registry(algorithms=(WRAPPING, CONTENT))
REFUSALS = (
    JoseError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    RecursionError,
)
"""Exceptions that joserfc raises for a malformed JWE or an unsuitable key."""


def new_encryption_key(kid: str) -> dict[str, str]:
    """Return a new symmetric key as a JSON Web Key (RFC 7517, `kty` `oct`)."""
    key = jwk.OctKey.generate_key(KEY_BITS, parameters={"kid": kid, "use": "enc", "alg": WRAPPING})
    return cast("dict[str, str]", key.as_dict(private=True))


def read_encryption_keys(text: str | bytes) -> "JweKeys":
    """Return the encryption keys of a JSON Web Key Set.

    The first key encrypts. Every key decrypts.

    Raises:
        ConfigurationError: The text is not a set of symmetric 256-bit keys, or a key has no
            unique id. The error contains no key material.
    """
    try:
        members = json.loads(text)["keys"]
        with warnings.catch_warnings():
            # The warning is about short keys, which are rejected below.
            warnings.simplefilter("ignore", SecurityWarning)
            keys = [jwk.OctKey.import_key(member) for member in members]
    except REFUSALS:
        # Hide the cause, because the text of the cause may contain a key.
        raise ConfigurationError(
            "BUS_ENCRYPTION_KEYS is not a JSON Web Key Set of symmetric keys. "
            'Write it as {"keys": [{"kty": "oct", "kid": …, "k": …}]}.'
        ) from None
    if not keys:
        raise ConfigurationError("BUS_ENCRYPTION_KEYS has no key. Create one with `bus keys ring`.")
    ids = [key.kid for key in keys]
    for key in keys:
        if not key.kid or ids.count(key.kid) > 1:
            raise ConfigurationError(
                "BUS_ENCRYPTION_KEYS has keys without a unique kid. Give each key its own `kid`."
            )
        if len(key.raw_value) * 8 != KEY_BITS:
            raise ConfigurationError(
                f"BUS_ENCRYPTION_KEYS: the key {key.kid} has {len(key.raw_value) * 8} bits. "
                f"Use keys of {KEY_BITS} bits."
            )
    return JweKeys(keys)


class JweKeys:
    """Encryption keys. The first key encrypts, and every key decrypts."""

    def __init__(self, keys: Sequence[jwk.OctKey]) -> None:
        """Build the object. The list `keys` must not be empty. The first key encrypts."""
        self._newest = keys[0]
        self._keys = {key.kid: key for key in keys}

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt `plain`, and return JSON. Decryption requires the same `context`."""
        protected = {"alg": WRAPPING, "enc": CONTENT, "kid": self._newest.kid}
        encryption = jwe.FlattenedJSONEncryption(protected, plain, aad=context)
        encryption.add_recipient(None, self._newest)
        return json.dumps(
            jwe.encrypt_json(encryption, self._newest, registry=REGISTRY), separators=(",", ":")
        ).encode()

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt `sealed`. The `context` must be the same as for the encryption.

        Raises:
            UnknownEncryptionKey: The payload was encrypted with an unknown key.
            DecryptionFailed: The payload is malformed, was changed, or was encrypted with a
                different context.
        """
        content = _parse_content(sealed)
        kid = _read_kid(content)
        if content.get("header", {}) not in ({}, {"kid": kid}):
            raise DecryptionFailed
        key = self._keys.get(kid)
        if key is None:
            raise UnknownEncryptionKey
        # A sender can forge the context in the payload, so replace it with this message's context.
        content["aad"] = urlsafe_b64encode(context).decode()
        try:
            plain = jwe.decrypt_json(
                cast("jwe.FlattenedJSONSerialization", content), key, registry=REGISTRY
            ).plaintext
        except REFUSALS:
            raise DecryptionFailed from None
        if plain is None:
            raise DecryptionFailed
        return plain


def _parse_content(sealed: bytes) -> dict[str, Any]:
    try:
        content = json.loads(sealed)
    except (ValueError, RecursionError):
        raise DecryptionFailed from None
    if not isinstance(content, dict) or not content.keys() <= MEMBERS:
        raise DecryptionFailed
    return content


def _read_kid(content: dict[str, Any]) -> str:
    """Return the key id in the protected header. If it cannot be read, return an empty text.

    The decryption fails if the protected header was changed.
    """
    try:
        header = json.loads(urlsafe_b64decode(content["protected"].encode()))
        return str(header["kid"])
    except REFUSALS:
        return ""
