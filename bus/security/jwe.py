"""A ring of keys, and what is sealed with them: JSON Web Encryption (RFC 7516, flattened JSON serialization).

A fresh data key encrypts each payload (A256GCM), and a key of the ring wraps that key (A256KW). Loaded where keys are set only.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any, cast

from joserfc import jwe, jwk
from joserfc.errors import JoseError, SecurityWarning
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from bus.errors import ConfigurationError
from bus.security.encryption import DecryptionFailed, UnknownEncryptionKey

__all__ = ["JweKeys", "new_encryption_key", "read_encryption_keys"]

WRAPPING, CONTENT = "A256KW", "A256GCM"
KEY_BITS = 256
MEMBERS = frozenset({"protected", "iv", "ciphertext", "tag", "aad", "header", "encrypted_key"})
"""Of a sealed payload; all that RFC 7516 knows beside these would change how it is read."""


class Registry(jwe.JWERegistry):
    """Two algorithms, no compression, one recipient."""

    max_ciphertext_length = 32 * 1024 * 1024
    """Bytes in base64; what is larger does not pass the broker."""


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
"""What the library raises of what is no JWE, or not one of these keys."""


def new_encryption_key(kid: str) -> dict[str, str]:
    """A new key as JSON Web Key (RFC 7517, `kty` `oct`); secret."""
    key = jwk.OctKey.generate_key(KEY_BITS, parameters={"kid": kid, "use": "enc", "alg": WRAPPING})
    return cast("dict[str, str]", key.as_dict(private=True))


def read_encryption_keys(text: str | bytes) -> "JweKeys":
    """The ring in a JSON Web Key Set: the first key encrypts, every one decrypts. `ConfigurationError` where it is none."""
    try:
        members = json.loads(text)["keys"]
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", SecurityWarning
            )  # of a short key, which is refused below
            keys = [jwk.OctKey.import_key(member) for member in members]
    except REFUSALS:
        raise ConfigurationError(
            'BUS_ENCRYPTION_KEYS: it is no JSON Web Key Set of symmetric keys, {"keys": [{"kty": "oct", "kid": …, "k": …}]}'
        ) from None  # the other error may hold a key
    if not keys:
        raise ConfigurationError(
            "BUS_ENCRYPTION_KEYS: there is no key in it; `bus keys ring` makes one"
        )
    names = [key.kid for key in keys]
    for key in keys:
        if not key.kid or names.count(key.kid) > 1:
            raise ConfigurationError("BUS_ENCRYPTION_KEYS: each key needs a `kid` of its own")
        if len(key.raw_value) * 8 != KEY_BITS:
            raise ConfigurationError(
                f"BUS_ENCRYPTION_KEYS: the key {key.kid} has {len(key.raw_value) * 8} bits, and {KEY_BITS} are wanted"
            )
    return JweKeys(keys)


class JweKeys:
    """Seals with the newest key, and opens with each."""

    def __init__(self, keys: Sequence[jwk.OctKey]) -> None:
        """The first is the newest; at least one."""
        self._newest = keys[0]
        self._keys = {key.kid: key for key in keys}

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """`plain` as JSON that is bound to `context`."""
        protected = {"alg": WRAPPING, "enc": CONTENT, "kid": self._newest.kid}
        sealing = jwe.FlattenedJSONEncryption(protected, plain, aad=context)
        sealing.add_recipient(None, self._newest)
        return json.dumps(
            jwe.encrypt_json(sealing, self._newest, registry=REGISTRY), separators=(",", ":")
        ).encode()

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed for `context`. `NotOurs` where its key is not in the ring, `Unreadable` where it is anything else."""
        content = _content(sealed)
        kid = _kid(content)
        if content.get("header", {}) not in ({}, {"kid": kid}):
            raise DecryptionFailed
        key = self._keys.get(kid)
        if key is None:
            raise UnknownEncryptionKey
        # What it says of its context does not count.
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


def _content(sealed: bytes) -> dict[str, Any]:
    try:
        content = json.loads(sealed)
    except (ValueError, RecursionError):
        raise DecryptionFailed from None
    if not isinstance(content, dict) or not content.keys() <= MEMBERS:
        raise DecryptionFailed
    return content


def _kid(content: dict[str, Any]) -> str:
    """Of the protected header, which the ciphertext is bound to; empty where it has none."""
    try:
        header = json.loads(urlsafe_b64decode(content["protected"].encode()))
        return str(header["kid"])
    except REFUSALS:
        return ""
