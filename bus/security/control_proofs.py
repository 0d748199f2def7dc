"""Control proofs: signed tokens of the questions, answers and announcements on the control channel.

A service token has one audience, and every receiver of a question could replay it. So a question
carries a proof that is bound to its target, its window, its type, its body and the address of its
answers. The functions are pure: the caller passes the current time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast, get_args

from bus.messaging.control import MAX_WINDOW_SECONDS
from bus.messaging.envelope import Envelope
from bus.messaging.topology.control import COMMANDS, is_answer_key_of
from bus.security.claims import check_issued_at, check_signed_by, text_claim, time_claim
from bus.security.jws import Claims, KeyLookup, decode_jws, decode_unverified, encode_jws, reject
from bus.security.keys import KeyPair, Role
from bus.security.proofs import digest

__all__ = [
    "CONTROL_PROOF",
    "ROUNDING_SECONDS",
    "ProvenAsker",
    "control_proof",
    "verify_control_proof",
    "verify_question",
]

CONTROL_PROOF: Final = "ctl+jwt"
"""The `typ` of a control proof (RFC 8725, 3.11)."""
TARGET, AUDIENCE, ANSWERED, RETURN = "tgt", "aud", "irt", "rto"
"""Claims that tell a question, an answer and an announcement apart.

A question has `tgt` and `rto`, an answer has `aud` and `irt`, and an announcement has only `tgt`.
"""

ROUNDING_SECONDS = 0.001
"""Maximum error of the difference of two times in milliseconds."""


@dataclass(frozen=True, slots=True)
class ProvenAsker:
    """The verified sender of a question."""

    name: str
    """Name of the service or the operator."""
    role: Role
    is_shared: bool = False
    """True if the key is the shared secret of `BUS_AUTH=dev`, which proves no name."""
    issued: float | None = None
    """Time of the signature, in seconds since the epoch. None without a proof."""

    @property
    def proven_name(self) -> str | None:
        """The name, or None if the key proves no name."""
        return None if self.is_shared else self.name


def control_proof(
    pair: KeyPair,
    envelope: Envelope,
    *,
    now: float,
    target: str | None = None,
    audience: str | None = None,
) -> str:
    """Return a proof for a message on the control channel.

    Args:
        pair: The key pair of the sender.
        envelope: The message, with `expires`.
        now: Seconds since the epoch.
        target: For a question or an announcement, its routing key.
        audience: For an answer, its routing key. It names the asker, and the process that asked.
    """
    claims: dict[str, object] = {
        "jti": envelope.id,
        "type": envelope.type,
        "iss": envelope.source,
        "role": pair.key.role,
        "iat": int(now * 1000) / 1000,
        "exp": (envelope.expires or 0) / 1000,
        "dig": digest(envelope.body),
    }
    optional = {
        TARGET: target,
        AUDIENCE: audience,
        ANSWERED: envelope.in_reply_to,
        RETURN: envelope.reply_to,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    return encode_jws(pair, CONTROL_PROOF, claims)


def verify_question(
    envelope: Envelope, keys: KeyLookup, *, targets: frozenset[str], now: float, leeway: float
) -> ProvenAsker:
    """Check the proof of a question, and return its asker.

    Args:
        envelope: The question.
        keys: The keys and the permitted algorithms.
        targets: The targets that mean this process.
        now: Seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.

    Raises:
        Unauthenticated: The proof is missing or invalid, or belongs to another message. Or the
            question is for other instances, or its window is too long or is over.
        UnknownKey: `keys` does not contain the key of the proof.
    """
    claims, asker = _verify(envelope, keys, now=now, leeway=leeway)
    target = text_claim(claims, TARGET)
    if target not in targets:
        reject("the question is for other instances")
    _expect(claims, {RETURN: envelope.reply_to or "", AUDIENCE: None, ANSWERED: None})
    # A command answers to the name that no service has, so no service can receive its answers.
    receiver = COMMANDS if asker.role == "operator" else asker.name
    if not is_answer_key_of(receiver, envelope.reply_to or ""):
        reject("reply_to is not an address for answers to the asker")
    return asker


def verify_control_proof(
    envelope: Envelope,
    keys: KeyLookup,
    *,
    now: float,
    leeway: float,
    target: str | None = None,
    audience: str | None = None,
) -> None:
    """Check the proof of an answer, or of an announcement. Its sender must be a service.

    Args:
        envelope: The message.
        keys: The keys and the permitted algorithms.
        now: Seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.
        target: For an announcement, its routing key.
        audience: For an answer, the routing key of the process that asked.

    Raises:
        Unauthenticated: The proof is missing or invalid, or belongs to another message.
        UnknownKey: `keys` does not contain the key of the proof.
    """
    claims, sender = _verify(envelope, keys, now=now, leeway=leeway)
    if sender.role != "service":
        reject("the signing key does not have the role service")
    answered = None if audience is None else envelope.in_reply_to or ""
    _expect(claims, {TARGET: target, AUDIENCE: audience, ANSWERED: answered, RETURN: None})


def _verify(
    envelope: Envelope, keys: KeyLookup, *, now: float, leeway: float
) -> tuple[Claims, ProvenAsker]:
    if envelope.proof is None:
        reject("the message has no control proof")
    # The role only selects the key. The signature and `check_signed_by` prove it.
    role = (decode_unverified(envelope.proof) or {}).get("role")
    if not isinstance(role, str) or role not in get_args(Role):
        reject("the claim role of the control proof is not service or operator")
    role = cast("Role", role)
    claims, key = decode_jws(envelope.proof, CONTROL_PROOF, keys, role)
    check_signed_by(key, text_claim(claims, "iss"), role)
    _expect(
        claims,
        {
            "jti": envelope.id,
            "type": envelope.type,
            "iss": envelope.source,
            "dig": digest(envelope.body),
        },
    )
    issued, expires = check_issued_at(claims, key, now, leeway), time_claim(claims, "exp")
    if not 0 < expires - issued <= MAX_WINDOW_SECONDS + ROUNDING_SECONDS:
        reject(f"the window is not above 0 and up to {MAX_WINDOW_SECONDS:g} s")
    if envelope.expires != round(expires * 1000):
        reject("expires does not match the control proof")
    if expires + leeway <= now:
        reject("the window is over")
    is_shared = key.owner is None
    return claims, ProvenAsker(envelope.source, role, is_shared=is_shared, issued=issued)


def _expect(claims: Claims, expected: Mapping[str, str | None]) -> None:
    """Reject the proof if a claim differs. None means that a claim must be absent."""
    for name, value in expected.items():
        if claims.get(name) != value:
            reject(f"the claim {name} of the control proof does not match the message")
