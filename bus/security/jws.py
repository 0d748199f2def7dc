"""Encoding and strict decoding of JSON Web Tokens.

A token consists of a header, claims and a signature. The set of header parameters is fixed. The bus
decodes tokens itself, because PyJWT's decoder is less strict. PyJWT accepts additional header
parameters, duplicate claims, and base64url text that is not canonical. No error contains any part
of a token.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, Protocol

from bus.errors import Unauthenticated, UnknownKey
from bus.security.keys import KEY_ID, Key, KeyPair, Role

__all__ = [
    "CANONICAL_LAST_CHARS",
    "COMPACT_JSON",
    "MAX_TOKEN_LENGTH",
    "STRICT_JSON",
    "Claims",
    "KeyLookup",
    "base64",
    "claimed_key_id",
    "decode_jws",
    "decode_unverified",
    "encode_jws",
    "reject",
]

MAX_TOKEN_LENGTH = 8192
"""Maximum number of characters of a service token, a message proof or an expiry override."""
COMPACT = re.compile(r"([\w-]{1,1024})\.([\w-]+)\.([\w-]{1,128})", re.ASCII)
CANONICAL_LAST_CHARS: tuple[str, str | None, str, str] = ("", None, "AQgw", "AEIMQUYcgkosw048")
"""Permitted last characters of base64url text, indexed by `len(text) % 4`.

In these characters, the bits that encode no data are zero. An empty text permits any character.
None means that no base64url text has this length.
"""
MAX_CACHED_HEADERS = 256
"""Maximum number of decoded headers in the cache. Each key has one header for each `typ`."""
HEADER = frozenset({"alg", "kid", "typ"})
"""All permitted header parameters.

A token with an additional parameter (for example `jwk`, `jku`, `x5u`, `crit` or `b64`) is rejected.
So an additional parameter cannot influence the verification.
"""
Claims = dict[str, Any]


class KeyLookup(Protocol):
    """The keys and algorithms that a token may be signed with."""

    @property
    def algorithms(self) -> frozenset[Any]:
        """Permitted algorithms."""
        ...

    def get(self, kid: str) -> Sequence[Key]:
        """Return the keys with this id. If the id is unknown, the result is empty."""
        ...


def encode_jws(pair: KeyPair, typ: str, claims: Mapping[str, object]) -> str:
    """Sign the claims with the key pair, and return the compact JWT."""
    signed = _header(pair.key.algorithm, pair.key.id, typ) + b"." + _encode_part(claims)
    return (signed + b"." + base64(pair.private.sign(signed))).decode()


@lru_cache(MAX_CACHED_HEADERS)
def _header(algorithm: str, kid: str, typ: str) -> bytes:
    return _encode_part({"alg": algorithm, "kid": kid, "typ": typ})


def _encode_part(value: Mapping[str, object]) -> bytes:
    return base64(COMPACT_JSON.encode(value).encode())


def base64(data: bytes) -> bytes:
    """Return the data in base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=")


def decode_jws(token: str, typ: str, keys: KeyLookup, role: Role = "service") -> tuple[Claims, Key]:
    """Check the signature of a token. Return the token's claims, and the key that verified it.

    Args:
        token: The compact JWT.
        typ: The `typ` that the header must have.
        keys: The keys and the permitted algorithms.
        role: The role of the issuer. It selects a key if several keys have the id of the token.

    Raises:
        Unauthenticated: The token is malformed, or its signature does not match.
        UnknownKey: `keys` does not contain the key of the token.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        reject(f"the JWT is longer than {MAX_TOKEN_LENGTH} characters")
    parts = COMPACT.fullmatch(token)
    if parts is None:
        reject("the JWT does not have the compact form")
    algorithm, kid = _read_header(parts[1], typ)
    if algorithm not in keys.algorithms:
        reject("the JWT algorithm is not allowed")
    candidates = keys.get(kid)
    if not candidates:
        raise UnknownKey(
            "the signing key is not in the receiver's BUS_JWKS. "
            "Use the same BUS_JWKS key set in both services."
        )
    if len(candidates) > 1:
        candidates = _select_keys(candidates, parts[2], role)
    candidates = [key for key in candidates if key.algorithm == algorithm]
    if not candidates:
        reject("the JWT algorithm is not the algorithm of the signing key")
    signature, signed = _bytes(parts[3], "the JWT signature"), token[: parts.start(3) - 1].encode()
    key = next((key for key in candidates if key.verify(signed, signature)), None)
    if key is None:
        reject("the JWT signature does not match")
    return _decode_object(parts[2], "the JWT payload"), key


def _select_keys(keys: Sequence[Key], payload: str, role: Role) -> Sequence[Key]:
    """Return the keys of the issuer that the claims name, although the claims are not verified yet.

    Another service can publish its keys with an id that this issuer uses. Those keys must neither
    replace the issuer's key nor cost time.
    """
    issuer = _decode_object(payload, "the JWT payload").get("iss")
    own = [key for key in keys if (key.owner, key.role) == (issuer, role)]
    if not own:
        reject("the signing key does not belong to the issuer")
    return own


# Cached, because all tokens of one key and `typ` have the same header. Errors are not cached.
@lru_cache(MAX_CACHED_HEADERS)
def _read_header(text: str, typ: str) -> tuple[str, str]:
    """Return the algorithm and the key id of a header."""
    header = _decode_object(text, "the JWT header")
    if header.keys() - HEADER:
        reject("the JWT header has parameters that are not allowed")
    if header.get("typ") != typ:
        reject(f"the JWT typ is not {typ}")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        reject("the JWT algorithm is not allowed")
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        reject("the JWT key id is malformed")
    return algorithm, kid


def reject(why: str) -> NoReturn:
    """Raise `Unauthenticated` with this reason."""
    raise Unauthenticated(why)


def _bytes(text: str, label: str) -> bytes:
    """Decode base64url text. `COMPACT` has already checked the characters of the text."""
    over = len(text) % 4
    last = CANONICAL_LAST_CHARS[over]
    if last is None:
        reject(f"{label} is not base64url")
    if last and text[-1] not in last:
        reject(f"{label} is not canonical base64url")
    return urlsafe_b64decode(text + "==" if over else text)


def _decode_object(text: str, label: str) -> Claims:
    """Return a JSON object without duplicate names and without NaN or infinity."""
    try:
        value = STRICT_JSON.decode(_bytes(text, label).decode("utf-8"))
    except (ValueError, RecursionError):
        reject(f"{label} is not a JSON object, or has a duplicate name")
    if not isinstance(value, dict):
        reject(f"{label} is not a JSON object")
    return value


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> Claims:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _reject_constant(_: str) -> NoReturn:
    raise ValueError


STRICT_JSON = json.JSONDecoder(
    object_pairs_hook=_reject_duplicate_names, parse_constant=_reject_constant
)
COMPACT_JSON = json.JSONEncoder(separators=(",", ":"))


def decode_unverified(token: str) -> Claims | None:
    """Return the unverified claims of a token. If the token is malformed, return None."""
    parts = COMPACT.fullmatch(token)
    try:
        return None if parts is None else _decode_object(parts[2], "the JWT payload")
    except Unauthenticated:
        return None


def claimed_key_id(token: str, typ: str) -> str | None:
    """Return the key id that a token names, or None if its form is wrong. Nothing is verified."""
    parts = COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN_LENGTH else None
    try:
        return None if parts is None else _read_header(parts[1], typ)[1]
    except Unauthenticated:
        return None
