"""What says who sent a message: service tokens, message proofs, and an operator's counter-proofs. Pure; the clock is a parameter.

All three are JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, each with a `typ` of its own (RFC 8725, 3.11), so that
none passes for another. `bus.security.jws` reads what they have in common. No error's text has anything of a token in it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bus.messaging.ids import random_hex_factory
from bus.security.claims import check_issued_at, check_signed_by, text_claim, time_claim
from bus.security.jws import KeyLookup, decode_jws, encode_jws, reject
from bus.security.keys import KeyPair

__all__ = ["TOKEN_LIFETIME_SECONDS", "ServiceToken", "service_token", "verify_service_token"]

SERVICE = "svc+jwt"
"""The `typ` of a service token (RFC 8725, 3.11)."""
TOKEN_LIFETIME_SECONDS = 300
"""Seconds."""
MAX_TOKEN_LIFETIME_SECONDS = 900
"""Seconds; of a token that another program made."""

jti = random_hex_factory(16)


# --- making --------------------------------------------------------------------------------------------------------


def service_token(
    pair: KeyPair,
    *,
    issuer: str,
    audience: str,
    scope: str,
    now: float,
    jti: Callable[[], str] = jti,
) -> str:
    """A token by which `issuer` speaks to `audience` for five minutes. `scope`: permissions with spaces between."""
    begins = int(now)
    claims = {
        "iss": issuer,
        "aud": audience,
        "scope": scope,
        "iat": begins,
        "nbf": begins,
        "exp": begins + TOKEN_LIFETIME_SECONDS,
        "jti": jti(),
    }
    return encode_jws(pair, SERVICE, claims)


# --- checking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """What a token that was checked says."""

    issuer: str
    scope: frozenset[str]
    until: float
    """Seconds since the epoch, the clocks' leeway included."""


def verify_service_token(
    token: str, keys: KeyLookup, *, audience: str, now: float, leeway: float
) -> ServiceToken:
    """What a service token says to `audience`. Raises `Unauthenticated`, and `UnknownKey` for a key that is not here."""
    claims, key = decode_jws(token, SERVICE, keys)
    issuer = text_claim(claims, "iss")
    check_signed_by(key, issuer)
    if text_claim(claims, "aud") != audience:
        reject("it is for another service")
    scope = text_claim(claims, "scope")
    if not text_claim(claims, "jti"):
        reject("its claim jti is empty")
    issued = check_issued_at(claims, key, now, leeway)
    if time_claim(claims, "nbf") > now + leeway:
        reject("it is not valid yet")
    expires = time_claim(claims, "exp")
    if expires + leeway <= now:
        reject("it has expired")
    if expires - issued > MAX_TOKEN_LIFETIME_SECONDS:
        reject("it is valid for too long")
    return ServiceToken(issuer=issuer, scope=frozenset(scope.split(" ")), until=expires + leeway)


# --- more time, by an operator -------------------------------------------------------------------------------------
