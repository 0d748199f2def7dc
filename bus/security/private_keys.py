"""Functions that create and read private keys and the shared secret of `BUS_AUTH=dev`."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm
from jwt.exceptions import InvalidKeyError
from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair

from bus.errors import ConfigurationError
from bus.security.keys import (
    ED25519,
    P256,
    Algorithm,
    Key,
    KeyPair,
    PrivateKey,
    members_of,
    thumbprint_of,
)

__all__ = ["DEV_KEY", "MIN_SECRET_BYTES", "dev_key", "generate", "read_private"]

DEV_KEY = "dev"
"""The key id and thumbprint of the shared secret of `BUS_AUTH=dev`."""
MIN_SECRET_BYTES = 32
"""Minimum length of a secret for HS256 (RFC 7518)."""
SHA256 = HMACAlgorithm(HMACAlgorithm.SHA256)
PrivateMaterial = Ed25519PrivateKey | EllipticCurvePrivateKey


def generate(algorithm: Algorithm = "EdDSA") -> dict[str, str]:
    """Return a new private key as a JSON Web Key."""
    if algorithm == "EdDSA":
        return {
            **_strings(OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)),
            "alg": algorithm,
        }
    return {
        **_strings(ECAlgorithm.to_jwk(generate_private_key(SECP256R1()), as_dict=True)),
        "alg": algorithm,
    }


def _strings(jwk: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in jwk.items()}


def read_private(text: str) -> list[PrivateKey]:
    """Return the private keys in the text of a PEM file, JSON Web Key or JSON Web Key Set.

    Raises:
        ConfigurationError: The text has no private key, or has a key of a type other than Ed25519
            and P-256. The error contains no key material.
    """
    try:
        materials = (
            [_from_pem(text)]
            if text.lstrip().startswith("-----BEGIN")
            else [_from_jwk(jwk) for jwk in _list_jwks(text)]
        )
    except (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, RecursionError):
        materials = []
    if not materials or not all(
        isinstance(material, Ed25519PrivateKey) or _is_p256(material) for material in materials
    ):
        raise ConfigurationError(
            "the private key is invalid. Write an unencrypted Ed25519 or P-256 key as PEM, "
            "JSON Web Key or JSON Web Key Set."
        )
    return [_to_private_key(cast("PrivateMaterial", material)) for material in materials]


def _list_jwks(text: str) -> list[Any]:
    content = json.loads(text)
    jwks = content.get("keys", [content]) if isinstance(content, dict) else None
    if not isinstance(jwks, list) or not all(isinstance(jwk, dict) for jwk in jwks):
        raise TypeError
    return jwks


def _from_pem(text: str) -> object:
    return load_pem_private_key(text.strip().encode(), password=None)


def _from_jwk(jwk: dict[str, Any]) -> object:
    return ED25519.from_jwk(jwk) if jwk.get("kty") == "OKP" else P256.from_jwk(jwk)


def _is_p256(material: object) -> bool:
    return isinstance(material, EllipticCurvePrivateKey) and isinstance(material.curve, SECP256R1)


def _to_private_key(material: PrivateMaterial) -> PrivateKey:
    public = material.public_key()
    if isinstance(material, Ed25519PrivateKey):
        return PrivateKey(
            algorithm="EdDSA",
            thumbprint=thumbprint_of(public),
            sign=_ed25519_signer(material.private_bytes_raw()),
            public=members_of(public),
        )
    return PrivateKey(
        algorithm="ES256",
        thumbprint=thumbprint_of(public),
        sign=lambda message: P256.sign(message, material),
        public=members_of(public),
    )


def _ed25519_signer(secret: bytes) -> Callable[[bytes], bytes]:
    _, key = crypto_sign_seed_keypair(secret)
    return lambda message: crypto_sign(message, key)[:crypto_sign_BYTES]


# --- Development ---


def dev_key(secret: str) -> KeyPair:
    """Return the shared secret of `BUS_AUTH=dev` as an HS256 key pair. Every service owns it.

    Raises:
        ConfigurationError: The secret is shorter than 32 bytes, or the secret is an asymmetric key.
    """
    data = secret.encode()
    if len(data) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"BUS_KEY must have at least {MIN_SECRET_BYTES} bytes (UTF-8) with BUS_AUTH=dev. "
            "Set the same secret for all services."
        )
    try:
        material = SHA256.prepare_key(data)
    except InvalidKeyError:
        raise ConfigurationError(
            "BUS_KEY must be a secret text with BUS_AUTH=dev, not an asymmetric key. "
            "Set the same secret for all services."
        ) from None
    key = Key(
        id=DEV_KEY,
        algorithm="HS256",
        owner=None,
        thumbprint=DEV_KEY,
        verify=lambda message, signature: SHA256.verify(message, material, signature),
    )
    private = PrivateKey(
        algorithm="HS256",
        thumbprint=DEV_KEY,
        sign=lambda message: SHA256.sign(message, material),
        public={},
    )
    return KeyPair(key=key, private=private)
