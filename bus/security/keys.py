"""Keys, with their owner, their algorithm, and the period in which their signatures are valid.

A public key is a JSON Web Key (RFC 7517, 8037) with additional members. `iss` is the service or
operator that owns the key, and `role` is its role. The times `not_before`, `retired_at` and
`compromised_since` are in seconds since the epoch.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast, get_args

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from jwt.exceptions import InvalidKeyError
from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError

from bus.contracts.contract import check_part
from bus.errors import ConfigurationError, ContractError

__all__ = [
    "KEY_ID",
    "Algorithm",
    "Key",
    "KeyPair",
    "PrivateKey",
    "Role",
    "members_of",
    "read_jwk",
    "thumbprint_of",
]

Algorithm = Literal["EdDSA", "ES256", "HS256"]
Role = Literal["service", "operator"]
KINDS: Mapping[tuple[object, object], Algorithm] = {
    ("OKP", "Ed25519"): "EdDSA",
    ("EC", "P-256"): "ES256",
}
"""Permitted pairs of `kty` and `crv`, each with its only permitted algorithm."""
PRIVATE_MEMBERS = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})
"""Members that only a private or symmetric key has (RFC 7518, 6)."""
KEY_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
"""Pattern of key ids. Unknown senders can choose any key id, so slashes and spaces are rejected."""
MAX_TIMESTAMP_SECONDS = 2**40
"""Every time of a key must be lower than this value, in seconds since the epoch."""

ED25519, P256 = OKPAlgorithm(), ECAlgorithm(ECAlgorithm.SHA256, SECP256R1)
PublicMaterial = Ed25519PublicKey | EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Key:
    """A public key. It verifies the signatures of its owner."""

    id: str
    algorithm: Algorithm
    owner: str | None
    """The service or operator that owns the key. None: every service (`BUS_AUTH=dev`)."""
    role: Role = "service"
    not_before: float = 0
    """The time at which the key becomes valid. Earlier signatures are rejected."""
    retired_at: float | None = None
    compromised_since: float | None = None
    thumbprint: str = field(repr=False)
    """The thumbprint (RFC 7638). A private key and its public key have the same thumbprint."""
    verify: Callable[[bytes, bytes], bool] = field(repr=False)
    """Function that takes a message and a signature. It returns True if the signature is valid."""

    def check_use(self, issued_at: float) -> str | None:
        """Return why a signature from the time `issued_at` is invalid. None means valid."""
        if issued_at < self.not_before:
            return "the signing key was not valid yet"
        if self.compromised_since is not None and issued_at >= self.compromised_since:
            return "the signing key is compromised"
        if self.retired_at is not None and issued_at >= self.retired_at:
            return "the signing key was already retired"
        return None

    def changes(self) -> Iterable[float]:
        """Return the times at which the key becomes valid or invalid for signing."""
        return (
            moment
            for moment in (self.not_before, self.retired_at, self.compromised_since)
            if moment is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrivateKey:
    """A private key for signing. The owner and the times are in the public key (`Key`)."""

    algorithm: Algorithm
    thumbprint: str
    sign: Callable[[bytes], bytes] = field(repr=False)
    public: Mapping[str, str] = field(repr=False)
    """Members of the public key, such as `kty`, `crv` and `x`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyPair:
    """A public key and the private key that belongs to it."""

    key: Key
    private: PrivateKey = field(repr=False)


# --- Public keys ---


def read_jwk(jwk: object) -> Key:
    """Return the public key of a JSON Web Key.

    Raises:
        ConfigurationError: The key is invalid or not public. The error contains no key material.
    """
    if not isinstance(jwk, Mapping):
        raise ConfigurationError(
            "the key is not a JSON object, has a duplicate name, or is nested too deeply"
        )
    if PRIVATE_MEMBERS & jwk.keys():
        raise ConfigurationError(
            "the key is private or symmetric. Replace it with a new key, "
            "and publish only public keys."
        )
    kid, owner, role = jwk.get("kid"), jwk.get("iss"), jwk.get("role", "service")
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        raise ConfigurationError("kid must have 1 to 100 characters: letters, digits and . : _ -")
    if role not in get_args(Role):
        raise ConfigurationError(f"{kid}: role must be service or operator")
    if not isinstance(owner, str):
        raise ConfigurationError(
            f"{kid}: iss is missing. Name the service or operator that owns the key."
        )
    if role == "service":
        _check_service(owner, kid)
    algorithm, material = _read_material(jwk, kid)
    return Key(
        id=kid,
        algorithm=algorithm,
        owner=owner,
        role=role,
        not_before=_read_time(jwk, "not_before", kid) or 0,
        retired_at=_read_time(jwk, "retired_at", kid),
        compromised_since=_read_time(jwk, "compromised_since", kid),
        thumbprint=thumbprint_of(material),
        verify=_verifier_of(material),
    )


def _check_service(owner: str, kid: str) -> None:
    try:
        check_part(owner, "service")
    except ContractError as error:
        raise ConfigurationError(f"{kid}: iss: {error}") from None


def _read_material(jwk: Mapping[str, Any], kid: str) -> tuple[Algorithm, PublicMaterial]:
    kind = jwk.get("kty"), jwk.get("crv")
    algorithm = KINDS.get(kind) if all(isinstance(member, str) for member in kind) else None
    if algorithm is None:
        raise ConfigurationError(f"{kid}: the key is neither Ed25519 (kty OKP) nor P-256 (kty EC)")
    if jwk.get("alg") != algorithm:
        raise ConfigurationError(f"{kid}: alg must be {algorithm}")
    if jwk.get("use", "sig") != "sig":
        raise ConfigurationError(f"{kid}: use must be sig")
    try:
        material = ED25519.from_jwk(dict(jwk)) if algorithm == "EdDSA" else P256.from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, TypeError):
        raise ConfigurationError(f"{kid}: x and y are not the coordinates of a valid key") from None
    return algorithm, cast("PublicMaterial", material)


def _read_time(jwk: Mapping[str, Any], name: str, kid: str) -> float | None:
    value = jwk.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < MAX_TIMESTAMP_SECONDS  # NaN fails this comparison.
    ):
        raise ConfigurationError(f"{kid}: {name} must be seconds since the epoch")
    return value


def _verifier_of(material: PublicMaterial) -> Callable[[bytes, bytes], bool]:
    if isinstance(material, Ed25519PublicKey):
        return partial(_verify_ed25519, material.public_bytes_raw())
    return lambda message, signature: P256.verify(message, material, signature)


def _verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Verify a signature with libsodium, which takes half the time of OpenSSL.

    `docs/adr/0016-libsodium-makes-and-checks-ed25519.md` has the measurements.
    """
    if len(signature) != crypto_sign_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def thumbprint_of(material: PublicMaterial) -> str:
    """Return the thumbprint of RFC 7638 in hex."""
    return hashlib.sha256(
        json.dumps(members_of(material), sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def members_of(material: PublicMaterial) -> dict[str, str]:
    """Return the members that define the key. RFC 7638 computes the thumbprint from them."""
    jwk: Mapping[str, Any]
    jwk = (
        OKPAlgorithm.to_jwk(material, as_dict=True)
        if isinstance(material, Ed25519PublicKey)
        else ECAlgorithm.to_jwk(material, as_dict=True)
    )
    return {name: str(jwk[name]) for name in ("kty", "crv", "x", "y") if name in jwk}
