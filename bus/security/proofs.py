"""Message proofs and expiry overrides. They are signed tokens, each valid for one message."""

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
"""The `typ` of message proofs, and the `typ` of expiry overrides (RFC 8725, 3.11)."""
MAX_PROOF_LIFETIME_SECONDS = 31 * 24 * 3600
"""Maximum seconds from a proof's `iat` to its `exp`.

A retired key must stay published for this time. After a stolen key is marked as compromised,
a thief can still sign proofs with an earlier `iat`. The limit ends the validity of these proofs.
"""
MAX_EXPIRY_OVERRIDES = 3
"""Maximum number of expiry overrides for one message."""


def digest(body: bytes) -> str:
    """Return the SHA-256 of the bytes in base64url without padding."""
    return base64(sha256(body).digest()).decode()


def message_proof(
    pair: KeyPair,
    envelope: Envelope,
    *,
    now: float,
    audience: str | None = None,
    refused: Envelope | None = None,
) -> str:
    """Return a proof for this message.

    The proof is valid until the message expires. If the message has no `expires`, the proof is
    valid for five minutes. Replies have no `expires`.

    Args:
        pair: The key pair of the sender.
        envelope: The message.
        now: Seconds since the epoch.
        audience: For a reply, the service that receives the reply.
        refused: For an error reply, the rejected message. The proof includes a digest of the
            rejected message's token or proof. An attacker can forge a message with the id of a
            genuine message. The digest shows the sender whether the genuine message was rejected.
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


def expiry_override(  # noqa: PLR0913 - one parameter for each claim
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
    """Return an expiry override: an operator's permission to handle an expired message.

    Args:
        pair: The key pair of the operator.
        envelope: The message.
        queue: The work queue in which the override is valid.
        actor: The operator that gives the permission.
        reason: The operator's reason. It becomes part of the override.
        expires: The new time of expiry, in milliseconds since the epoch.
        count: 1 for the first override of this message, up to `MAX_EXPIRY_OVERRIDES`.
        now: Seconds since the epoch.
    """
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
    """Convert milliseconds to seconds. The result is an int if it is whole (RFC 7519, 2)."""
    seconds, rest = divmod(milliseconds, 1000)
    return milliseconds / 1000 if rest else seconds


def verify_proof(
    envelope: Envelope,
    keys: KeyLookup,
    *,
    now: float,
    leeway: float,
    audience: str | None = None,
    asked_with: Collection[str] | None = None,
) -> None:
    """Check that the proof is valid, and that it matches the message's attributes and body.

    Args:
        envelope: The message.
        keys: The keys and the permitted algorithms.
        now: Seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.
        audience: For a reply, the service that receives the reply.
        asked_with: For an error reply, the tokens or proofs of the messages that the reply may
            reject. If None, the reply may reject any message.

    Raises:
        Unauthenticated: The proof is missing or invalid, or belongs to another message.
        UnknownKey: `keys` does not contain the key of the proof.
        Expired: The message has expired, and no expiry override extends its time.
    """
    if envelope.proof is None:
        reject("the message has no proof")
    claims, key = decode_jws(envelope.proof, MESSAGE, keys)
    check_signed_by(key, text_claim(claims, "iss"))
    for name, value in _expected_claims(envelope, audience).items():
        if claims.get(name) != value:
            reject(f"the claim {name} of the proof does not match the message")
    if (
        asked_with is not None
        and "ref" in claims
        and claims["ref"] not in [digest(credential.encode()) for credential in asked_with]
    ):
        reject("the error reply rejects another message with the same id")
    expires = _check_lifetime(claims, key, now, leeway)
    if audience is not None:
        if expires + leeway <= now:
            reject("the proof has expired")
    elif envelope.expiry_override is not None:
        _verify_expiry_override(envelope, keys, now=now, leeway=leeway)
    elif envelope.expires != _milliseconds(expires):
        reject("expires does not match the proof")
    elif expires <= now:
        raise Expired(f"{envelope.type} expired before it was handled")


def _check_lifetime(claims: Claims, key: Key, now: float, leeway: float) -> float:
    """Check the times in the claims, and return the time of expiry."""
    issued, expires = check_issued_at(claims, key, now, leeway), time_claim(claims, "exp")
    if expires - issued > MAX_PROOF_LIFETIME_SECONDS:
        reject(f"the claims iat and exp are more than {MAX_PROOF_LIFETIME_SECONDS} s apart")
    return expires


def _expected_claims(envelope: Envelope, audience: str | None) -> dict[str, str | int | None]:
    """Return the claims that the proof must have. None means that a claim must be absent."""
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
    """The claims of a verified expiry override."""

    operator: str
    actor: str
    reason: str = field(repr=False)
    count: int
    expires: int
    """The new time of expiry, in milliseconds since the epoch."""


def _verify_expiry_override(
    envelope: Envelope, keys: KeyLookup, *, now: float, leeway: float
) -> ExpiryOverride:
    """Verify the expiry override of a message, and return its claims.

    Raises:
        Unauthenticated: The override is invalid, or belongs to another message or queue.
        UnknownKey: `keys` does not contain the operator's key.
        Expired: The override has expired.
    """
    claims, key = decode_jws(envelope.expiry_override or "", COUNTER, keys, "operator")
    check_signed_by(key, text_claim(claims, "iss"), "operator")
    expected = {
        "jti": envelope.id,
        "prf": digest((envelope.proof or "").encode()),
        "queue": envelope.queue,
    }
    for name, value in expected.items():
        if text_claim(claims, name) != value:
            reject(f"the claim {name} of the expiry override does not match the message")
    expires = _check_lifetime(claims, key, now, leeway)
    if envelope.expires != _milliseconds(expires):
        reject("expires does not match the expiry override")
    actor, reason = text_claim(claims, "actor"), text_claim(claims, "reason")
    if not actor.strip() or not reason.strip():
        reject("the expiry override has no actor or no reason")
    count = _read_count(claims)
    if expires <= now:
        raise Expired(f"{envelope.type}: the message and its expiry override have expired")
    return ExpiryOverride(
        operator=text_claim(claims, "iss"),
        actor=actor,
        reason=reason,
        count=count,
        expires=_milliseconds(expires),
    )


def _read_count(claims: Claims) -> int:
    count = claims.get("n")
    if (
        isinstance(count, bool)
        or not isinstance(count, int)
        or not 1 <= count <= MAX_EXPIRY_OVERRIDES
    ):
        reject(f"the claim n of the expiry override is not 1 to {MAX_EXPIRY_OVERRIDES}")
    return count


def count_expiry_overrides(envelope: Envelope) -> int:
    """Return the number of expiry overrides of a message.

    The message contains only the last override, which states the number. This function does not
    check the signature of the override. The service that handles the message checks it. If the
    override cannot be read, the result is `MAX_EXPIRY_OVERRIDES`.
    """
    if envelope.expiry_override is None:
        return 0
    claims = decode_unverified(envelope.expiry_override)
    try:
        return MAX_EXPIRY_OVERRIDES if claims is None else _read_count(claims)
    except Unauthenticated:
        return MAX_EXPIRY_OVERRIDES


Countersign = Callable[[Envelope, str, int], str | None]
"""A function that signs an expiry override.

Its parameters are the message, the work queue and the new `expires` in milliseconds. The function
returns None if the message already has `MAX_EXPIRY_OVERRIDES` overrides.
"""
