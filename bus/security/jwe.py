"""Payload encryption by JSON Web Encryption (RFC 7516, flattened JSON serialization).

A new data key encrypts each payload (A256GCM), and an encryption key wraps the data key (A256KW).
The bus reads and writes the serialization itself. A JOSE library that encodes the protected header
again cannot decrypt the payloads of senders that write JSON differently (RFC 7516, 5.2).
"""

import binascii
import os
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from bus.errors import ConfigurationError
from bus.security.encryption import DecryptionFailed, UnknownEncryptionKey
from bus.security.jws import CANONICAL_LAST_CHARS, COMPACT_JSON, STRICT_JSON, base64

__all__ = ["JweKeys", "new_encryption_key", "read_encryption_keys"]

WRAPPING, CONTENT = "A256KW", "A256GCM"
KEY_BYTES, WRAPPED_KEY_BYTES, IV_BYTES, TAG_BYTES = 32, 40, 12, 16
MAX_PROTECTED_LENGTH = 1024
"""Maximum number of characters of the protected header."""
MAX_COMMAS = 1024
"""Maximum number of commas in an encrypted payload.

A payload has six commas between its members, and possibly more in a key id. Any client of the
broker can send a payload with millions of values, which would stop the event loop for seconds.
"""
REQUIRED = frozenset({"protected", "encrypted_key", "iv", "ciphertext", "tag"})
MEMBERS = REQUIRED | {"aad", "header"}
"""Permitted members of an encrypted payload.

The bus computes `aad` itself. Older versions of the bus repeat `kid` in `header`.
"""
PARAMETERS = frozenset({"alg", "enc", "kid", "typ", "cty"})
"""Permitted parameters of the protected header. Only these do not change the decryption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionKey:
    """A symmetric key that wraps data keys."""

    id: str
    secret: bytes = field(repr=False)


def new_encryption_key(kid: str) -> dict[str, str]:
    """Return a new symmetric key as a JSON Web Key (RFC 7517, `kty` `oct`)."""
    secret = base64(os.urandom(KEY_BYTES)).decode()
    return {"kty": "oct", "kid": kid, "use": "enc", "alg": WRAPPING, "k": secret}


def read_encryption_keys(text: str | bytes) -> "JweKeys":
    """Return the encryption keys of a JSON Web Key Set.

    The first key encrypts. Every key decrypts.

    Raises:
        ConfigurationError: The text is not a set of symmetric 256-bit keys, or a key has no
            unique id, or a key has another purpose. The error contains no key material.
    """
    try:
        members = STRICT_JSON.decode(text if isinstance(text, str) else text.decode())["keys"]
        keys = [_read_key(member) for member in members]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, DecryptionFailed):
        # Hide the cause, because the text of the cause may contain a key.
        raise ConfigurationError(
            "BUS_ENCRYPTION_KEYS is not a JSON Web Key Set of symmetric keys. "
            'Write it as {"keys": [{"kty": "oct", "kid": …, "k": …}]}.'
        ) from None
    if not keys:
        raise ConfigurationError("BUS_ENCRYPTION_KEYS has no key. Create one with `bus keys ring`.")
    ids = [key.id for key in keys]
    for key, member in zip(keys, members, strict=True):
        _check_key(key, member, ids)
    return JweKeys(keys)


def _read_key(member: Mapping[str, Any]) -> EncryptionKey:
    if member["kty"] != "oct":
        raise ValueError
    kid = member.get("kid")
    return EncryptionKey(id=kid if isinstance(kid, str) else "", secret=_decode(member, "k"))


def _check_key(key: EncryptionKey, member: Mapping[str, Any], ids: Sequence[str]) -> None:
    if not key.id or ids.count(key.id) > 1:
        raise ConfigurationError(
            "BUS_ENCRYPTION_KEYS has keys without a unique kid. Give each key its own `kid`."
        )
    if len(key.secret) != KEY_BYTES:
        raise ConfigurationError(
            f"BUS_ENCRYPTION_KEYS: the key {key.id} has {len(key.secret) * 8} bits. "
            f"Use keys of {KEY_BYTES * 8} bits."
        )
    if member.get("use", "enc") != "enc" or member.get("alg", WRAPPING) != WRAPPING:
        raise ConfigurationError(
            f"BUS_ENCRYPTION_KEYS: the key {key.id} has another `use` or `alg`. "
            f"Use keys with `use` enc and `alg` {WRAPPING}."
        )


class JweKeys:
    """Encryption keys. The first key encrypts, and every key decrypts."""

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        """Build the object. The list `keys` must not be empty. The first key encrypts."""
        self._newest = keys[0].secret
        self.newest_id = keys[0].id
        self._keys = {key.id: key.secret for key in keys}
        # Older versions of the bus encode the header again before they decrypt. They only read
        # ASCII without spaces, with the parameters in this order.
        header = {"alg": WRAPPING, "enc": CONTENT, "kid": keys[0].id}
        self._protected = base64(COMPACT_JSON.encode(header).encode())

    def key_of(self, sealed: bytes) -> str:
        """Return the id of the key that `sealed` needs, which this object may not have.

        Raises:
            DecryptionFailed: The payload is malformed.
        """
        return _read_kid(_parse_content(sealed))

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt `plain`, and return JSON. Decryption requires the same `context`."""
        data_key, iv, aad = os.urandom(KEY_BYTES), os.urandom(IV_BYTES), base64(context)
        sealed = AESGCM(data_key).encrypt(iv, plain, self._protected + b"." + aad)
        content = {
            "protected": self._protected,
            "iv": base64(iv),
            "ciphertext": base64(sealed[:-TAG_BYTES]),
            "tag": base64(sealed[-TAG_BYTES:]),
            "aad": aad,
            "encrypted_key": base64(aes_key_wrap(self._newest, data_key)),
        }
        # No value needs an escape, because base64url has only letters, digits, `-` and `_`.
        return b"{%s}" % b",".join(
            b'"%s":"%s"' % (name.encode(), value) for name, value in content.items()
        )

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt `sealed`. The `context` must be the same as for the encryption.

        Raises:
            UnknownEncryptionKey: The payload was encrypted with an unknown key.
            DecryptionFailed: The payload is malformed, was changed, or was encrypted with a
                different context. The error has a reason if the payload is malformed.
        """
        content = _parse_content(sealed)
        kid = _read_kid(content)
        if content.get("header", {}) not in ({}, {"kid": kid}):
            _reject("header has more than the kid of the protected header")
        wrapped = _decode(content, "encrypted_key", WRAPPED_KEY_BYTES)
        iv, tag = _decode(content, "iv", IV_BYTES), _decode(content, "tag", TAG_BYTES)
        ciphertext = _decode(content, "ciphertext")
        key = self._keys.get(kid)
        if key is None:
            raise UnknownEncryptionKey
        # The text of the header as received (RFC 7516, 5.2), and the context of this message. A
        # sender can forge the context in the payload.
        authenticated = content["protected"].encode() + b"." + base64(context)
        try:
            data_key = aes_key_unwrap(key, wrapped)
            return AESGCM(data_key).decrypt(iv, ciphertext + tag, authenticated)
        except (InvalidUnwrap, InvalidTag):
            raise DecryptionFailed from None


def _reject(reason: str) -> NoReturn:
    """Raise `DecryptionFailed` with the reason, which must not contain values of the payload."""
    raise DecryptionFailed(reason)


def _parse_content(sealed: bytes) -> dict[str, Any]:
    # Without commas, JSON has no more values than levels, and the decoder limits the levels.
    if sealed.count(b",") > MAX_COMMAS:
        _reject(f"the body has more than {MAX_COMMAS} commas. An encrypted payload has six")
    try:
        content = STRICT_JSON.decode(sealed.decode())
    except (ValueError, RecursionError):
        _reject("the body is not a JSON object, or has a duplicate name")
    if not isinstance(content, dict):
        _reject("the body is not a JSON object")
    if "recipients" in content or "unprotected" in content:
        _reject("the body has recipients or unprotected. Use the flattened form with one recipient")
    if not content.keys() >= REQUIRED or not content.keys() <= MEMBERS:
        _reject(f"the body has other members than {', '.join(sorted(REQUIRED))} and aad")
    return content


def _read_kid(content: dict[str, Any]) -> str:
    """Check the protected header, and return its key id."""
    text = content["protected"]
    if isinstance(text, str) and len(text) > MAX_PROTECTED_LENGTH:
        _reject(f"the protected header is longer than {MAX_PROTECTED_LENGTH} characters")
    try:
        header = STRICT_JSON.decode(_decode(content, "protected").decode())
    except (ValueError, RecursionError):
        _reject("the protected header is not a JSON object, or has a duplicate name")
    if not isinstance(header, dict):
        _reject("the protected header is not a JSON object")
    if not header.keys() <= PARAMETERS:
        _reject(f"the protected header has other parameters than {', '.join(sorted(PARAMETERS))}")
    if header.get("alg") != WRAPPING or header.get("enc") != CONTENT:
        _reject(f"the protected header has not the alg {WRAPPING} and the enc {CONTENT}")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        _reject("the protected header has no kid")
    return kid


def _decode(content: Mapping[str, Any], member: str, size: int | None = None) -> bytes:
    """Return the bytes of a member, which must be canonical base64url without padding.

    Args:
        content: The members.
        member: The name of the member.
        size: The required number of bytes. None permits any number.
    """
    text = content[member]
    if not isinstance(text, str) or not text.isascii() or any(sign in text for sign in "+/="):
        _reject(f"{member} is not base64url without padding")
    over = len(text) % 4
    last = CANONICAL_LAST_CHARS[over]
    if last is None or (last and text[-1] not in last):
        _reject(f"{member} is not canonical base64url")
    try:
        data = b64decode(text + "=" * (-over % 4), b"-_", validate=True)
    except binascii.Error:
        _reject(f"{member} is not base64url without padding")
    if size is not None and len(data) != size:
        _reject(f"{member} has {len(data)} bytes instead of {size}")
    return data
