"""Private keys: made, read, and put to sign; and the one secret of `BUS_AUTH=dev`."""

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

__all__ = ["DEV_KEY", "dev_key", "generate", "read_private"]

DEV_KEY = "dev"
MIN_SECRET_BYTES = 32
"""Bytes, as RFC 7518 asks of HS256."""
SHA256 = HMACAlgorithm(HMACAlgorithm.SHA256)
PrivateMaterial = Ed25519PrivateKey | EllipticCurvePrivateKey


def generate(algorithm: Algorithm = "EdDSA") -> dict[str, str]:
    """A new private key, as a JSON Web Key; keep it secret."""
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
    """The private keys in a PEM, a JSON Web Key, or a set of these; `ConfigurationError`, which shows nothing of them."""
    try:
        materials = (
            [_from_pem(text)]
            if text.lstrip().startswith("-----BEGIN")
            else [_from_jwk(jwk) for jwk in _listed(text)]
        )
    except (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, RecursionError):
        materials = []
    if not materials or not all(
        isinstance(each, Ed25519PrivateKey) or _is_p256(each) for each in materials
    ):
        raise ConfigurationError(
            "the private key is none: write an Ed25519 or P-256 key as PEM, JSON Web Key or a set of these, unencrypted"
        )
    return [_private(cast("PrivateMaterial", each)) for each in materials]


def _listed(text: str) -> list[Any]:
    whole = json.loads(text)
    listed = whole.get("keys", [whole]) if isinstance(whole, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise TypeError
    return listed


def _from_pem(text: str) -> object:
    return load_pem_private_key(text.strip().encode(), password=None)


def _from_jwk(jwk: dict[str, Any]) -> object:
    return ED25519.from_jwk(jwk) if jwk.get("kty") == "OKP" else P256.from_jwk(jwk)


def _is_p256(material: object) -> bool:
    return isinstance(material, EllipticCurvePrivateKey) and isinstance(material.curve, SECP256R1)


def _private(material: PrivateMaterial) -> PrivateKey:
    public = material.public_key()
    if isinstance(material, Ed25519PrivateKey):
        return PrivateKey(
            algorithm="EdDSA",
            thumbprint=thumbprint_of(public),
            sign=_signing(material.private_bytes_raw()),
            public=members_of(public),
        )
    signing = lambda message: P256.sign(message, material)  # noqa: E731 - as short as its twin above
    return PrivateKey(
        algorithm="ES256", thumbprint=thumbprint_of(public), sign=signing, public=members_of(public)
    )


def _signing(secret: bytes) -> Callable[[bytes], bytes]:
    _, key = crypto_sign_seed_keypair(secret)
    return lambda message: crypto_sign(message, key)[:crypto_sign_BYTES]


# --- development ---------------------------------------------------------------------------------------------------


def dev_key(secret: str) -> KeyPair:
    """One shared secret that speaks for everyone (HS256): for `BUS_AUTH=dev` alone. `ConfigurationError` where it is short."""
    data = secret.encode()
    if len(data) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"with BUS_AUTH=dev BUS_KEY is a secret of at least {MIN_SECRET_BYTES} characters, the same for all services"
        )
    try:
        material = SHA256.prepare_key(data)
    except InvalidKeyError:
        raise ConfigurationError(
            "with BUS_AUTH=dev BUS_KEY is a secret text, and no key file"
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
