"""Checks of JWT claims (RFC 7519) that service tokens and message proofs share. Pure; the clock is a parameter."""

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
"""Seconds since the epoch."""


def text_claim(claims: Claims, name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        reject(f"its claim {name} is missing, or is no text")
    return value


def time_claim(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value < MAX_TIMESTAMP_SECONDS
    ):  # NaN is not above 0
        reject(f"its claim {name} is missing, or is no time")
    return value


def check_signed_by(key: Key, issuer: str, role: str = "service") -> None:
    if key.owner is None:
        return  # development: anyone's
    if key.role != role:
        reject("its key is for something else")
    if key.owner != issuer:
        reject("its key is another's")


def check_issued_at(claims: Claims, key: Key, now: float, leeway: float) -> float:
    """When it was signed, by a key that was valid then."""
    issued = time_claim(claims, "iat")
    if issued > now + leeway:
        reject("it is signed in the future")
    why = key.check_use(issued)
    if why is not None:
        reject(why)
    return issued
