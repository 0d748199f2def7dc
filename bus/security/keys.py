"""Keys: whose they are, which algorithm each is for, and when what they signed counts.

A public key is a JSON Web Key (RFC 7517, 8037) with members of ours: `iss`, the service that it speaks for, or the
operator; `role`; `not_before`, `retired_at` and `compromised_since`, in seconds since the epoch.
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
    "public_keys",
    "read_jwk",
    "thumbprint_of",
]

Algorithm = Literal["EdDSA", "ES256", "HS256"]
Role = Literal["service", "operator"]
KINDS: Mapping[tuple[object, object], Algorithm] = {
    ("OKP", "Ed25519"): "EdDSA",
    ("EC", "P-256"): "ES256",
}
"""What `kty` and `crv` may be, and the one algorithm that each is for."""
PRIVATE_MEMBERS = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})
KEY_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
"""What a `kid` may be: it comes from strangers, and must be no path and no sentence."""
MAX_TIMESTAMP_SECONDS = 2**40
"""Seconds since the epoch; what is later is a mistake."""

ED25519, P256 = OKPAlgorithm(), ECAlgorithm(ECAlgorithm.SHA256, SECP256R1)
PublicMaterial = Ed25519PublicKey | EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Key:
    """A public key: it checks what its owner signed."""

    id: str
    algorithm: Algorithm
    owner: str | None
    """The service that it speaks for, or the operator; None: anyone, which is for development alone."""
    role: Role = "service"
    not_before: float = 0
    """Seconds since the epoch, as the others: what says that it was signed earlier is refused."""
    retired_at: float | None = None
    compromised_since: float | None = None
    thumbprint: str = field(repr=False)
    """RFC 7638; the same for both halves of a key."""
    verify: Callable[[bytes, bytes], bool] = field(repr=False)
    """Whether a signature (the second) is this key's, over the first."""

    def check_use(self, issued_at: float) -> str | None:
        """Why what was signed at `issued_at` does not count; None where it does."""
        if issued_at < self.not_before:
            return "it is signed before its key was valid"
        if self.compromised_since is not None and issued_at >= self.compromised_since:
            return "its key is compromised"
        if self.retired_at is not None and issued_at >= self.retired_at:
            return "it is signed after its key was retired"
        return None

    def changes(self) -> Iterable[float]:
        """The moments at which it begins or ceases to be good for signing."""
        return (
            moment
            for moment in (self.not_before, self.retired_at, self.compromised_since)
            if moment is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrivateKey:
    """What signs. Whose it is and when it is valid stands with its public half."""

    algorithm: Algorithm
    thumbprint: str
    sign: Callable[[bytes], bytes] = field(repr=False)
    public: Mapping[str, str] = field(repr=False)
    """The public half's members: `kty`, `crv`, `x`…"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyPair:
    """Both halves of a key, to sign with now."""

    key: Key
    private: PrivateKey = field(repr=False)


# --- public keys ---------------------------------------------------------------------------------------------------


def public_keys(text: str | bytes) -> tuple[dict[str, Key], list[str]]:
    """The keys of a JSON Web Key Set, by id, and what is wrong with those that are left out.

    One that is malformed is left out, so that nothing signed with it is accepted, and the others are not held up.
    Raises `ConfigurationError` where the whole is no key set.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError("the key set is no JSON") from None
    listed = whole.get("keys") if isinstance(whole, dict) else None
    if not isinstance(listed, list):
        raise ConfigurationError('the key set is no JSON Web Key Set: {"keys": […]}')
    keys: dict[str, Key] = {}
    faults: list[str] = []
    doubled: set[str] = set()
    for place, jwk in enumerate(listed, 1):
        try:
            key = read_jwk(jwk)
        except ConfigurationError as error:
            faults.append(f"key {place}: {error}")
            continue
        if key.id in keys or key.id in doubled:
            faults.append(f"key {place}: a second key with the id {key.id}; neither counts")
            doubled.add(key.id)
            keys.pop(key.id, None)
            continue
        keys[key.id] = key
    return keys, faults


def read_jwk(jwk: object) -> Key:
    """One public key; `ConfigurationError` says what is wrong with it, and shows nothing of a private one."""
    if not isinstance(jwk, Mapping):
        raise ConfigurationError("it is no object")
    if PRIVATE_MEMBERS & jwk.keys():
        raise ConfigurationError(
            "it is a private or symmetric key; publish public ones alone, and make this one anew"
        )
    kid, owner, role = jwk.get("kid"), jwk.get("iss"), jwk.get("role", "service")
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        raise ConfigurationError(
            "its kid is missing, or is other than 1 to 100 letters, digits and . : _ -"
        )
    if role not in get_args(Role):
        raise ConfigurationError(f"{kid}: role is service or operator")
    if not isinstance(owner, str):
        raise ConfigurationError(f"{kid}: iss is missing, the service that it speaks for")
    if role == "service":
        _check_service(owner, kid)
    algorithm, material = _public(jwk, kid)
    return Key(
        id=kid,
        algorithm=algorithm,
        owner=owner,
        role=role,
        not_before=_moment(jwk, "not_before", kid) or 0,
        retired_at=_moment(jwk, "retired_at", kid),
        compromised_since=_moment(jwk, "compromised_since", kid),
        thumbprint=thumbprint_of(material),
        verify=_verifying(material),
    )


def _check_service(owner: str, kid: str) -> None:
    try:
        check_part(owner, "service")
    except ContractError as error:
        raise ConfigurationError(f"{kid}: iss: {error}") from None


def _public(jwk: Mapping[str, Any], kid: str) -> tuple[Algorithm, PublicMaterial]:
    kind = jwk.get("kty"), jwk.get("crv")
    algorithm = KINDS.get(kind) if all(isinstance(each, str) for each in kind) else None
    if algorithm is None:
        raise ConfigurationError(f"{kid}: it is neither Ed25519 (kty OKP) nor P-256 (kty EC)")
    if jwk.get("alg") != algorithm:
        raise ConfigurationError(f"{kid}: alg has to be {algorithm}")
    if jwk.get("use", "sig") != "sig":
        raise ConfigurationError(f"{kid}: use is other than sig")
    try:
        read = ED25519.from_jwk(dict(jwk)) if algorithm == "EdDSA" else P256.from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, TypeError):
        raise ConfigurationError(f"{kid}: its coordinates are no key") from None
    return algorithm, cast("PublicMaterial", read)


def _moment(jwk: Mapping[str, Any], name: str, kid: str) -> float | None:
    value = jwk.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < MAX_TIMESTAMP_SECONDS
    ):  # NaN is not
        raise ConfigurationError(f"{kid}: {name} is seconds since the epoch")
    return value


def _verifying(material: PublicMaterial) -> Callable[[bytes, bytes], bool]:
    if isinstance(material, Ed25519PublicKey):
        return partial(_verified, material.public_bytes_raw())
    return lambda message, signature: P256.verify(message, material, signature)


def _verified(public: bytes, message: bytes, signature: bytes) -> bool:
    """By libsodium, in half of OpenSSL's time: docs/adr/0016."""
    if len(signature) != crypto_sign_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def thumbprint_of(material: PublicMaterial) -> str:
    """RFC 7638, in hex."""
    return hashlib.sha256(
        json.dumps(members_of(material), sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def members_of(material: PublicMaterial) -> dict[str, str]:
    """The members that make the key, and that RFC 7638 takes the thumbprint of."""
    jwk: Mapping[str, Any]
    jwk = (
        OKPAlgorithm.to_jwk(material, as_dict=True)
        if isinstance(material, Ed25519PublicKey)
        else ECAlgorithm.to_jwk(material, as_dict=True)
    )
    return {name: str(jwk[name]) for name in ("kty", "crv", "x", "y") if name in jwk}
