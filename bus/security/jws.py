"""The frame of a JSON Web Token: a header that steers nothing, claims, and a signature. Made, and read strictly.

It is read here and not by PyJWT's decoder, because what that lets pass is more than what is ours: further header parameters,
claims given twice, text that is not canonical. No error's text has anything of a token in it.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn, Protocol

from bus.errors import Unauthenticated, UnknownKey
from bus.security.keys import KEY_ID, Key, KeyPair

__all__ = [
    "MAX_TOKEN_LENGTH",
    "Claims",
    "KeyLookup",
    "base64",
    "decode_jws",
    "decode_unverified",
    "encode_jws",
    "reject",
]

MAX_TOKEN_LENGTH = 8192
"""Characters, of any of the three."""
COMPACT = re.compile(r"([\w-]{1,1024})\.([\w-]+)\.([\w-]{1,128})", re.ASCII)
CANONICAL_LAST_CHARS: tuple[str, str | None, str, str] = ("", None, "AQgw", "AEIMQUYcgkosw048")
"""By how many characters are over fours: which the last may be, for its unused bits to be 0. Empty: any. None: there is no such length."""
MAX_CACHED_HEADERS = 256
"""Headers remembered: a key has one for each `typ`."""
HEADER = frozenset({"alg", "kid", "typ"})
"""All that a header may have: so nothing in it (`jwk`, `jku`, `x5u`, `crit`, `b64`) can steer who checks."""
Claims = dict[str, Any]


class KeyLookup(Protocol):
    """The keys that are known."""

    @property
    def algorithms(self) -> frozenset[Any]:
        """Those that are allowed at all."""
        ...

    def get(self, kid: str) -> Key | None:
        """The key of this id."""
        ...


def encode_jws(pair: KeyPair, typ: str, claims: Mapping[str, object]) -> str:
    """A compact JWT."""
    signed = _header(pair.key.algorithm, pair.key.id, typ) + b"." + _part(claims)
    return (signed + b"." + base64(pair.private.sign(signed))).decode()


@lru_cache(MAX_CACHED_HEADERS)
def _header(algorithm: str, kid: str, typ: str) -> bytes:
    return _part({"alg": algorithm, "kid": kid, "typ": typ})


def _part(value: Mapping[str, object]) -> bytes:
    return base64(COMPACT_JSON.encode(value).encode())


def base64(data: bytes) -> bytes:
    """In base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=")


def decode_jws(token: str, typ: str, keys: KeyLookup) -> tuple[Claims, Key]:
    """The claims of a token whose signature is good, and its key. Raises `Unauthenticated`, and `UnknownKey` for a key that is not here."""
    if len(token) > MAX_TOKEN_LENGTH:
        reject("it is too large")
    parts = COMPACT.fullmatch(token)
    if parts is None:
        reject("it is no compact JWT")
    algorithm, kid = _read_header(parts[1], typ)
    if algorithm not in keys.algorithms:
        reject("its algorithm is not allowed")
    key = keys.get(kid)
    if key is None:
        raise UnknownKey("its key is not known here")
    if key.algorithm != algorithm:
        reject("its algorithm is not its key's")
    signature = _bytes(parts[3], "its signature")
    if not key.verify(token[: parts.start(3) - 1].encode(), signature):
        reject("its signature does not match")
    return _object(parts[2], "its payload"), key


@lru_cache(
    MAX_CACHED_HEADERS
)  # what one sender signs begins with the same header each time; a refusal is not remembered
def _read_header(text: str, typ: str) -> tuple[str, str]:
    """Its algorithm and the id of its key."""
    header = _object(text, "its header")
    if header.keys() - HEADER:
        reject("its header has parameters that are not allowed")
    if header.get("typ") != typ:
        reject(f"its typ is not {typ}")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        reject("its algorithm is not allowed")
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        reject("its key id is malformed")
    return algorithm, kid


def reject(why: str) -> NoReturn:
    """Say no."""
    raise Unauthenticated(why)


def _bytes(text: str, what: str) -> bytes:
    """What stands there; `text` is of the alphabet, which `COMPACT` has seen to."""
    over = len(text) % 4
    last = CANONICAL_LAST_CHARS[over]
    if last is None:
        reject(f"{what} is no base64url")
    if last and text[-1] not in last:
        reject(f"{what} is no canonical base64url")
    return urlsafe_b64decode(text + "==" if over else text)


def _object(text: str, what: str) -> Claims:
    """A JSON object without a name that is there twice, and without what is no JSON."""
    try:
        value = STRICT_JSON.decode(_bytes(text, what).decode("utf-8"))
    except (ValueError, RecursionError):
        reject(f"{what} is no JSON object, or has a name twice")
    if not isinstance(value, dict):
        reject(f"{what} is no JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> Claims:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_number(_: str) -> NoReturn:
    raise ValueError


STRICT_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
COMPACT_JSON = json.JSONEncoder(separators=(",", ":"))


def decode_unverified(token: str) -> Claims | None:
    """The claims of a token whose signature nobody has looked at; None where they cannot be read."""
    parts = COMPACT.fullmatch(token)
    try:
        return None if parts is None else _object(parts[2], "its payload")
    except Unauthenticated:
        return None
