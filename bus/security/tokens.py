"""Service tokens. A token proves the sender of a request or reply to one receiver.

Service tokens, message proofs and expiry overrides are JSON Web Tokens (RFC 7519) in the compact
form of RFC 7515. Each kind has its own `typ` (RFC 8725, 3.11), so that no kind is accepted as
another kind. `bus.security.jws` encodes and decodes all kinds. The functions are pure: the caller
passes the current time. No error contains any part of a token.
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
"""Seconds from a service token's `iat` to its `exp`."""
MAX_TOKEN_LIFETIME_SECONDS = 900
"""Maximum seconds from `iat` to `exp`.

The limit is higher than `TOKEN_LIFETIME_SECONDS`, because programs without this library can create
tokens with a longer lifetime.
"""

jti = random_hex_factory(16)


# --- Creating ---


def service_token(
    pair: KeyPair,
    *,
    issuer: str,
    audience: str,
    scope: str,
    now: float,
    jti: Callable[[], str] = jti,
) -> str:
    """Return a token that proves to `audience` who the sender is. It is valid for five minutes.

    Args:
        pair: The key pair of the issuer.
        issuer: The service that sends the token.
        audience: The service that accepts the token.
        scope: Permissions, separated by spaces.
        now: Seconds since the epoch.
        jti: Returns the token's unique id.
    """
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


# --- Verifying ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """The claims of a verified token."""

    issuer: str
    scope: frozenset[str]
    until: float
    """End of the token's validity, in seconds since the epoch. It includes the leeway."""


def verify_service_token(
    token: str, keys: KeyLookup, *, audience: str, now: float, leeway: float
) -> ServiceToken:
    """Return the claims of a service token. Check that the token is valid now.

    Args:
        token: The compact JWT.
        keys: The keys and the permitted algorithms.
        audience: The service that received the token.
        now: Seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.

    Raises:
        Unauthenticated: The token is invalid, has expired, or has another audience.
        UnknownKey: `keys` does not contain the key of the token.
    """
    claims, key = decode_jws(token, SERVICE, keys)
    issuer = text_claim(claims, "iss")
    check_signed_by(key, issuer)
    if text_claim(claims, "aud") != audience:
        reject("the token is for another service")
    scope = text_claim(claims, "scope")
    if not text_claim(claims, "jti"):
        reject("the claim jti is empty")
    issued = check_issued_at(claims, key, now, leeway)
    if time_claim(claims, "nbf") > now + leeway:
        reject("the token is not valid yet")
    expires = time_claim(claims, "exp")
    if expires + leeway <= now:
        reject("the token has expired")
    if expires - issued > MAX_TOKEN_LIFETIME_SECONDS:
        reject(f"the token is valid for more than {MAX_TOKEN_LIFETIME_SECONDS} s")
    return ServiceToken(issuer=issuer, scope=frozenset(scope.split(" ")), until=expires + leeway)
