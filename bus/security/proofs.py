"""Message proofs and expiry overrides: signatures about one message, which stay with it for its life."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256

from bus.errors import Expired, Unauthenticated
from bus.messaging.envelope import Envelope
from bus.security.claims import check_issued_at, check_signed_by, text_claim, time_claim
from bus.security.encryption import ENCRYPTION
from bus.security.jws import (
    Claims,
    KeyLookup,
    base64,
    decode_jws,
    decode_unverified,
    encode_jws,
    reject,
)
from bus.security.keys import Key, KeyPair
from bus.security.tokens import TOKEN_LIFETIME_SECONDS

__all__ = [
    "MAX_EXPIRY_OVERRIDES",
    "MAX_PROOF_LIFETIME_SECONDS",
    "ExpiryOverride",
    "count_expiry_overrides",
    "digest",
    "expiry_override",
    "message_proof",
    "verify_proof",
]

MESSAGE, COUNTER = "msg+jwt", "ctr+jwt"
"""The `typ` of a message proof and of an expiry override (RFC 8725, 3.11)."""
MAX_PROOF_LIFETIME_SECONDS = 31 * 24 * 3600
"""Seconds from a proof's `iat` to its `exp`: so long the keys of the past have to stay published, and no longer can a lost one be used."""


MAX_EXPIRY_OVERRIDES = 3
"""How often an operator may give an expired message more time."""


def digest(body: bytes) -> str:
    """SHA-256 of the body as it is sent, in base64url without padding."""
    return base64(sha256(body).digest()).decode()


def message_proof(
    pair: KeyPair,
    envelope: Envelope,
    *,
    now: float,
    audience: str | None = None,
    refused: Envelope | None = None,
) -> str:
    """A proof about this one message. `audience`: who is answered, for answers; they are proven for five minutes.

    `refused`: the message that an error answers. Anyone may have written its id, and who sent the real one must know that apart.
    """
    claims: dict[str, object] = {
        "jti": envelope.id,
        "type": envelope.type,
        "iss": envelope.source,
        "iat": _seconds(int(now * 1000)),
        "exp": _seconds(envelope.expires or int((now + TOKEN_LIFETIME_SECONDS) * 1000)),
        "cid": envelope.correlation_id,
        "dig": digest(envelope.body),
    }
    if envelope.reply_to is not None:
        claims["rto"] = envelope.reply_to
    if envelope.in_reply_to is not None:
        claims["irt"] = envelope.in_reply_to
    if ENCRYPTION in envelope.headers:
        claims["enc"] = envelope.headers[ENCRYPTION]
    if audience is not None:
        claims["aud"] = audience
    if refused is not None:
        claims["ref"] = digest(
            ((refused.authorization if refused.role == "request" else refused.proof) or "").encode()
        )
    return encode_jws(pair, MESSAGE, claims)


def expiry_override(  # noqa: PLR0913 - a parameter a claim
    pair: KeyPair,
    envelope: Envelope,
    *,
    queue: str,
    actor: str,
    reason: str,
    expires: int,
    count: int,
    now: float,
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
    return encode_jws(pair, COUNTER, claims)


def _seconds(milliseconds: int) -> int | float:
    """A NumericDate, which may have a fraction (RFC 7519, 2)."""
    whole, rest = divmod(milliseconds, 1000)
    return milliseconds / 1000 if rest else whole


def verify_proof(
    envelope: Envelope,
    keys: KeyLookup,
    *,
    now: float,
    leeway: float,
    audience: str | None = None,
    asked_with: Collection[str] | None = None,
) -> None:
    """Hold a message to its proof, byte by byte of its body. `audience`: who is answered, where it is an answer.

    `asked_with`: the tokens or proofs of what is answered; None: not to be compared.

    Raises `Unauthenticated`, `UnknownKey` for a key that is not here, and `Expired` where its time is over and no
    operator has given it more.
    """
    if envelope.proof is None:
        reject("it has no proof")
    claims, key = decode_jws(envelope.proof, MESSAGE, keys)
    check_signed_by(key, text_claim(claims, "iss"))
    for name, value in _bound(envelope, audience).items():
        if claims.get(name) != value:
            reject(f"its {name} is not the proof's")
    if (
        asked_with is not None
        and "ref" in claims
        and claims["ref"] not in [digest(each.encode()) for each in asked_with]
    ):
        reject("it refuses another message, which has the same id")
    expires = _lasting(claims, key, now, leeway)
    if audience is not None:
        if expires + leeway <= now:
            reject("it has expired")
    elif envelope.expiry_override is not None:
        _verify_expiry_override(envelope, keys, now=now, leeway=leeway)
    elif envelope.expires != _milliseconds(expires):
        reject("its expires is not the proof's")
    elif expires <= now:
        raise Expired(f"{envelope.type}: it lay longer than it was worth handling")


def _lasting(claims: Claims, key: Key, now: float, leeway: float) -> float:
    """When it ends, which is not too long after its beginning."""
    issued, expires = check_issued_at(claims, key, now, leeway), time_claim(claims, "exp")
    if expires - issued > MAX_PROOF_LIFETIME_SECONDS:
        reject("it is valid for too long")
    return expires


def _bound(envelope: Envelope, audience: str | None) -> dict[str, str | int | None]:
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
        "enc": envelope.headers.get(ENCRYPTION),
    }


def _milliseconds(moment: float) -> int:
    return round(moment * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryOverride:
    """What an operator's counter-proof says."""

    operator: str
    actor: str
    reason: str = field(repr=False)
    count: int
    expires: int
    """Milliseconds since the epoch."""


def _verify_expiry_override(
    envelope: Envelope, keys: KeyLookup, *, now: float, leeway: float
) -> ExpiryOverride:
    claims, key = decode_jws(envelope.expiry_override or "", COUNTER, keys)
    check_signed_by(key, text_claim(claims, "iss"), "operator")
    wanted = {
        "jti": envelope.id,
        "prf": digest((envelope.proof or "").encode()),
        "queue": envelope.queue,
    }
    for name, value in wanted.items():
        if text_claim(claims, name) != value:
            reject(f"its {name} is not the counter-proof's")
    expires = _lasting(claims, key, now, leeway)
    if envelope.expires != _milliseconds(expires):
        reject("its expires is not the counter-proof's")
    actor, reason = text_claim(claims, "actor"), text_claim(claims, "reason")
    if not actor.strip() or not reason.strip():
        reject("its counter-proof does not say who and why")
    count = _count(claims)
    if expires <= now:
        raise Expired(f"{envelope.type}: the time that an operator gave it is over")
    return ExpiryOverride(
        operator=text_claim(claims, "iss"),
        actor=actor,
        reason=reason,
        count=count,
        expires=_milliseconds(expires),
    )


def _count(claims: Claims) -> int:
    count = claims.get("n")
    if (
        isinstance(count, bool)
        or not isinstance(count, int)
        or not 1 <= count <= MAX_EXPIRY_OVERRIDES
    ):
        reject("it was given more time too often")
    return count


def count_expiry_overrides(envelope: Envelope) -> int:
    """How often a message was given more time, as its last counter-proof says; not checked, since who checks is who handles it.

    One that cannot be read counts as all of them.
    """
    if envelope.expiry_override is None:
        return 0
    claims = decode_unverified(envelope.expiry_override)
    try:
        return MAX_EXPIRY_OVERRIDES if claims is None else _count(claims)
    except Unauthenticated:
        return MAX_EXPIRY_OVERRIDES


Countersign = Callable[[Envelope, str, int], str | None]
"""A counter-proof for a message, its work queue and its new `expires` (ms); None where it was given more time too often."""
