"""JSON Web Encryption from RFC 7516 and the page on the wire format, without code of the bus."""

import hashlib
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "==")


def additional_data(
    message_id: str, type_: str, app_id: str, correlation: str, in_reply_to: str | None
) -> bytes:
    """Return the bytes of `aad`, as the page specifies them."""
    attributes = [message_id, type_, app_id, correlation, in_reply_to]
    return hashlib.sha256(json.dumps(attributes, separators=(",", ":")).encode()).digest()


def seal(
    key: Mapping[str, str],
    plain: bytes,
    aad: bytes,
    *,
    protected: str | None = None,
    **members: Any,
) -> dict[str, Any]:
    """Encrypt as a foreign sender does.

    Args:
        key: A JSON Web Key.
        plain: The payload.
        aad: The bytes of `aad`.
        protected: The text of the protected header. The default has spaces.
        **members: Further members of the body.
    """
    header = protected or json.dumps({"kid": key["kid"], "enc": "A256GCM", "alg": "A256KW"})
    encoded, data_key, iv = b64(header.encode()), os.urandom(32), os.urandom(12)
    sealed = AESGCM(data_key).encrypt(iv, plain, f"{encoded}.{b64(aad)}".encode())
    return {
        "encrypted_key": b64(aes_key_wrap(unb64(key["k"]), data_key)),
        "tag": b64(sealed[-16:]),
        "ciphertext": b64(sealed[:-16]),
        "iv": b64(iv),
        "protected": encoded,
        **members,
    }


def open_sealed(key: Mapping[str, str], body: bytes, aad: bytes) -> bytes:
    """Decrypt as a foreign receiver does. RFC 7516, 7.2.1 forbids a parameter in two headers."""
    content = json.loads(body)
    header = json.loads(unb64(content["protected"]))
    assert not header.keys() & content.get("header", {}).keys()
    assert not header.keys() & content.get("unprotected", {}).keys()
    assert (header["alg"], header["enc"], header["kid"]) == ("A256KW", "A256GCM", key["kid"])
    assert unb64(content["aad"]) == aad
    data_key = aes_key_unwrap(unb64(key["k"]), unb64(content["encrypted_key"]))
    authenticated = f"{content['protected']}.{content['aad']}".encode()
    sealed = unb64(content["ciphertext"]) + unb64(content["tag"])
    return AESGCM(data_key).decrypt(unb64(content["iv"]), sealed, authenticated)
