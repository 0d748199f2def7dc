"""Checks of JWT claims (RFC 7519) in service tokens, message proofs and expiry overrides.

The functions are pure: the caller passes the current time.
"""

from bus.security.jws import Claims, reject
from bus.security.keys import Key

__all__ = [
    "MAX_TIMESTAMP_SECONDS",
    "check_issued_at",
    "check_signed_by",
    "text_claim",
    "time_claim",
]

MAX_TIMESTAMP_SECONDS = 2**40
"""Every time in a claim must be lower than this value, in seconds since the epoch."""


def text_claim(claims: Claims, name: str) -> str:
    """Return the value of a claim. Reject the token if the value is not text."""
    value = claims.get(name)
    if not isinstance(value, str):
        reject(f"the claim {name} is missing, or is not text")
    return value


def time_claim(claims: Claims, name: str) -> float:
    """Return the time in a claim, in seconds since the epoch. Reject the token if it has none."""
    value = claims.get(name)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value < MAX_TIMESTAMP_SECONDS  # NaN fails this comparison.
    ):
        reject(f"the claim {name} is missing, or is not a time")
    return value


def check_signed_by(key: Key, issuer: str, role: str = "service") -> None:
    """Reject the token unless `issuer` owns its key and the key has the role `role`."""
    if key.owner is None:
        return  # The shared secret of BUS_AUTH=dev belongs to every service.
    if key.role != role:
        reject(f"the signing key does not have the role {role}")
    if key.owner != issuer:
        reject("the signing key does not belong to the issuer")


def check_issued_at(claims: Claims, key: Key, now: float, leeway: float) -> float:
    """Return the claim `iat`, which is the time at which the token was signed.

    Reject the token if `iat` is in the future, or if the key was not valid at `iat`.
    """
    issued = time_claim(claims, "iat")
    if issued > now + leeway:
        reject("the claim iat is in the future")
    why = key.check_use(issued)
    if why is not None:
        reject(why)
    return issued
