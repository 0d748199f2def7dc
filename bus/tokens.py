"""What says who sent a message: service tokens, message proofs, and an operator's counter-proofs. Pure; the clock is a parameter.

All three are JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, each with a `typ` of its own (RFC 8725, 3.11), so that
none passes for another. The frame is read here and not by PyJWT's decoder, because what it lets pass is more than what is ours:
further header parameters, claims given twice, several audiences. PyJWT's algorithms check the signatures.

No error's text has anything of a token in it.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NoReturn, Protocol

from bus.envelope import Envelope
from bus.errors import Expired, Unauthenticated, UnknownKey
from bus.keys import KEY_ID, Key, KeyPair
from bus.randomness import hex_source

__all__ = [
    "LONGEST_LIFE",
    "LONGEST_TOKEN",
    "MOST_REPLAYS",
    "TOKEN_LIFE",
    "CounterProof",
    "Known",
    "ServiceToken",
    "check_proof",
    "check_token",
    "counter_proof",
    "counter_proofs_so_far",
    "digest",
    "message_proof",
    "service_token",
]

SERVICE, MESSAGE, COUNTER = "svc+jwt", "msg+jwt", "ctr+jwt"
TOKEN_LIFE = 300
"""Seconds."""
LONGEST_TOKEN_LIFE = 900
"""Seconds; of a token that another program made."""
LONGEST_LIFE = 31 * 24 * 3600
"""Seconds from a proof's `iat` to its `exp`: so long the keys of the past have to stay published, and no longer can a lost one be used."""
LONGEST_TOKEN = 8192
"""Characters, of any of the three."""
MOST_REPLAYS = 3
"""How often an operator may give an expired message more time."""
LATEST = 2**40
"""Seconds since the epoch."""

COMPACT = re.compile(r"([\w-]{1,1024})\.([\w-]+)\.([\w-]{1,128})", re.ASCII)
HEADER = frozenset({"alg", "kid", "typ"})
"""All that a header may have: so nothing in it (`jwk`, `jku`, `x5u`, `crit`, `b64`) can steer who checks."""

jti = hex_source(16)
Claims = dict[str, Any]


class Known(Protocol):
    """The keys that are known."""

    @property
    def algorithms(self) -> frozenset[Any]:
        """Those that are allowed at all."""
        ...

    def get(self, kid: str) -> Key | None:
        """The key of this id."""
        ...


# --- making --------------------------------------------------------------------------------------------------------


def _token(pair: KeyPair, typ: str, claims: Mapping[str, object]) -> str:
    """A compact JWT."""
    signed = _part({"alg": pair.key.algorithm, "kid": pair.key.id, "typ": typ}) + b"." + _part(claims)
    return (signed + b"." + _base64(pair.private.sign(signed))).decode()


def _part(value: Mapping[str, object]) -> bytes:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def digest(body: bytes) -> str:
    """SHA-256 of the body as it is sent, in base64url without padding."""
    return _base64(sha256(body).digest()).decode()


def service_token(pair: KeyPair, *, issuer: str, audience: str, scope: str, now: float) -> str:
    """A token by which `issuer` speaks to `audience` for five minutes. `scope`: permissions with spaces between."""
    begins = int(now)
    claims = {"iss": issuer, "aud": audience, "scope": scope, "iat": begins, "nbf": begins, "exp": begins + TOKEN_LIFE, "jti": jti()}
    return _token(pair, SERVICE, claims)


def message_proof(pair: KeyPair, envelope: Envelope, *, now: float, audience: str | None = None) -> str:
    """A proof about this one message. `audience`: who is answered, for answers; they are proven for five minutes."""
    claims: dict[str, object] = {
        "jti": envelope.id,
        "type": envelope.type,
        "iss": envelope.source,
        "iat": _seconds(int(now * 1000)),
        "exp": _seconds(envelope.expires or int((now + TOKEN_LIFE) * 1000)),
        "cid": envelope.correlation_id,
        "dig": digest(envelope.body),
    }
    if envelope.reply_to is not None:
        claims["rto"] = envelope.reply_to
    if envelope.in_reply_to is not None:
        claims["irt"] = envelope.in_reply_to
    if audience is not None:
        claims["aud"] = audience
    return _token(pair, MESSAGE, claims)


def counter_proof(  # noqa: PLR0913 - a parameter a claim
    pair: KeyPair, envelope: Envelope, *, queue: str, actor: str, reason: str, expires: int, count: int, now: float
) -> str:
    """An operator's word that this message may still be handled: from `queue`, until `expires` (ms). `count`: which such word it is."""
    claims = {
        "iss": pair.key.owner or pair.key.id,
        "jti": envelope.id,
        "prf": digest((envelope.proof or "").encode()),
        "queue": queue,
        "iat": _seconds(int(now * 1000)),
        "exp": _seconds(expires),
        "n": count,
        "actor": actor,
        "reason": reason,
    }
    return _token(pair, COUNTER, claims)


def _seconds(milliseconds: int) -> int | float:
    """A NumericDate, which may have a fraction (RFC 7519, 2)."""
    whole, rest = divmod(milliseconds, 1000)
    return milliseconds / 1000 if rest else whole


# --- reading -------------------------------------------------------------------------------------------------------


def _read(token: str, typ: str, keys: Known) -> tuple[Claims, Key]:
    """The claims of a token whose signature is good, and its key. Raises `Unauthenticated`, and `UnknownKey` for a key that is not here."""
    if len(token) > LONGEST_TOKEN:
        _refuse("it is too large")
    parts = COMPACT.fullmatch(token)
    if parts is None:
        _refuse("it is no compact JWT")
    header = _object(parts[1], "its header")
    if header.keys() - HEADER:
        _refuse("its header has parameters that are not allowed")
    if header.get("typ") != typ:
        _refuse(f"its typ is not {typ}")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in keys.algorithms:
        _refuse("its algorithm is not allowed")
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        _refuse("its key id is malformed")
    key = keys.get(kid)
    if key is None:
        raise UnknownKey("its key is not known here")
    if key.algorithm != algorithm:
        _refuse("its algorithm is not its key's")
    signature = _bytes(parts[3], "its signature")
    if not key.verify(token[: parts.start(3) - 1].encode(), signature):
        _refuse("its signature does not match")
    return _object(parts[2], "its payload"), key


def _refuse(why: str) -> NoReturn:
    raise Unauthenticated(why)


def _bytes(text: str, what: str) -> bytes:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (NotBase64, ValueError):
        _refuse(f"{what} is no base64url")
    if _base64(data) != text.encode():
        _refuse(f"{what} is no canonical base64url")
    return data


def _object(text: str, what: str) -> Claims:
    """A JSON object without a name that is there twice, and without what is no JSON."""
    try:
        value = STRICT.decode(_bytes(text, what).decode("utf-8"))
    except (ValueError, RecursionError):
        _refuse(f"{what} is no JSON object, or has a name twice")
    if not isinstance(value, dict):
        _refuse(f"{what} is no JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> Claims:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_number(_: str) -> NoReturn:
    raise ValueError


STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)


def _text(claims: Claims, name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        _refuse(f"its claim {name} is missing, or is no text")
    return value


def _moment(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LATEST:  # NaN is not above 0
        _refuse(f"its claim {name} is missing, or is no time")
    return value


def _signed_by(key: Key, issuer: str, role: str = "service") -> None:
    if key.owner is None:
        return  # development: anyone's
    if key.role != role:
        _refuse("its key is for something else")
    if key.owner != issuer:
        _refuse("its key is another's")


def _issued(claims: Claims, key: Key, now: float, leeway: float) -> float:
    """When it was signed, by a key that was valid then."""
    issued = _moment(claims, "iat")
    if issued > now + leeway:
        _refuse("it is signed in the future")
    why = key.refusal(issued)
    if why is not None:
        _refuse(why)
    return issued


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """What a token that was checked says."""

    issuer: str
    scope: frozenset[str]
    until: float
    """Seconds since the epoch, the clocks' leeway included."""


def check_token(token: str, keys: Known, *, audience: str, now: float, leeway: float) -> ServiceToken:
    """What a service token says to `audience`. Raises `Unauthenticated`, and `UnknownKey` for a key that is not here."""
    claims, key = _read(token, SERVICE, keys)
    issuer = _text(claims, "iss")
    _signed_by(key, issuer)
    if _text(claims, "aud") != audience:
        _refuse("it is for another service")
    scope = _text(claims, "scope")
    if not _text(claims, "jti"):
        _refuse("its claim jti is empty")
    issued = _issued(claims, key, now, leeway)
    if _moment(claims, "nbf") > now + leeway:
        _refuse("it is not valid yet")
    expires = _moment(claims, "exp")
    if expires + leeway <= now:
        _refuse("it has expired")
    if expires - issued > LONGEST_TOKEN_LIFE:
        _refuse("it is valid for too long")
    return ServiceToken(issuer=issuer, scope=frozenset(scope.split(" ")), until=expires + leeway)


def check_proof(envelope: Envelope, keys: Known, *, now: float, leeway: float, audience: str | None = None) -> None:
    """Hold a message to its proof, byte by byte of its body. `audience`: who is answered, where it is an answer.

    Raises `Unauthenticated`, `UnknownKey` for a key that is not here, and `Expired` where its time is over and no
    operator has given it more.
    """
    if envelope.proof is None:
        _refuse("it has no proof")
    claims, key = _read(envelope.proof, MESSAGE, keys)
    _signed_by(key, _text(claims, "iss"))
    for name, value in _bound(envelope, audience).items():
        if claims.get(name) != value:
            _refuse(f"its {name} is not the proof's")
    expires = _lasting(claims, key, now, leeway)
    if audience is not None:
        if expires + leeway <= now:
            _refuse("it has expired")
    elif envelope.counter_proof is not None:
        _check_counter_proof(envelope, keys, now=now, leeway=leeway)
    elif envelope.expires != _milliseconds(expires):
        _refuse("its expires is not the proof's")
    elif expires <= now:
        raise Expired(f"{envelope.type}: it lay longer than it was worth handling")


def _lasting(claims: Claims, key: Key, now: float, leeway: float) -> float:
    """When it ends, which is not too long after its beginning."""
    issued, expires = _issued(claims, key, now, leeway), _moment(claims, "exp")
    if expires - issued > LONGEST_LIFE:
        _refuse("it is valid for too long")
    return expires


def _bound(envelope: Envelope, audience: str | None) -> dict[str, str | None]:
    """The claims that have to be what the message says; None: may not be there."""
    return {
        "jti": envelope.id,
        "type": envelope.type,
        "iss": envelope.source,
        "cid": envelope.correlation_id,
        "dig": digest(envelope.body),
        "rto": envelope.reply_to,
        "irt": None if audience is None else envelope.in_reply_to or "",
        "aud": audience,
    }


def _milliseconds(moment: float) -> int:
    return round(moment * 1000)


# --- more time, by an operator -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterProof:
    """What an operator's counter-proof says."""

    operator: str
    actor: str
    reason: str = field(repr=False)
    count: int
    expires: int
    """Milliseconds since the epoch."""


def _check_counter_proof(envelope: Envelope, keys: Known, *, now: float, leeway: float) -> CounterProof:
    claims, key = _read(envelope.counter_proof or "", COUNTER, keys)
    _signed_by(key, _text(claims, "iss"), "operator")
    wanted = {"jti": envelope.id, "prf": digest((envelope.proof or "").encode()), "queue": envelope.queue}
    for name, value in wanted.items():
        if _text(claims, name) != value:
            _refuse(f"its {name} is not the counter-proof's")
    expires = _lasting(claims, key, now, leeway)
    if envelope.expires != _milliseconds(expires):
        _refuse("its expires is not the counter-proof's")
    actor, reason = _text(claims, "actor"), _text(claims, "reason")
    if not actor.strip() or not reason.strip():
        _refuse("its counter-proof does not say who and why")
    count = _count(claims)
    if expires <= now:
        raise Expired(f"{envelope.type}: the time that an operator gave it is over")
    return CounterProof(operator=_text(claims, "iss"), actor=actor, reason=reason, count=count, expires=_milliseconds(expires))


def _count(claims: Claims) -> int:
    count = claims.get("n")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_REPLAYS:
        _refuse("it was given more time too often")
    return count


def counter_proofs_so_far(envelope: Envelope) -> int:
    """How often a message was given more time, as its last counter-proof says; not checked, since who checks is who handles it.

    One that cannot be read counts as all of them.
    """
    if envelope.counter_proof is None:
        return 0
    parts = COMPACT.fullmatch(envelope.counter_proof)
    if parts is None:
        return MOST_REPLAYS
    try:
        return _count(_object(parts[2], "its payload"))
    except Unauthenticated:
        return MOST_REPLAYS
