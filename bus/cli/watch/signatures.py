"""The check of the signatures of tapped messages.

A tap has no permission of a receiver, so the check is weaker than a receiver's. It shows that the
named sender signed the message. It does not show that the sender has a grant.
"""

import time
from typing import Any, Protocol

from bus.errors import BusError, ConfigurationError, Expired, UnknownKey
from bus.messaging.envelope import Envelope
from bus.messaging.labels import one_line
from bus.security.jwks_source import public_key_source
from bus.security.jws import KeyLookup
from bus.security.key_set import read_key_set
from bus.security.keyring import shared_secret_keyring
from bus.security.proofs import verify_proof
from bus.security.signer import BEARER
from bus.security.tokens import verify_service_token
from bus.settings import Settings

__all__ = ["UNSIGNED", "UNVERIFIED", "VERIFIED", "NoKeys", "SignatureCheck", "load_check"]

UNVERIFIED, UNSIGNED, VERIFIED = "unverified", "unsigned", "verified"
MAX_REASON_LENGTH = 120


class SignatureCheck(Protocol):
    """Interface of a check of signatures."""

    needs_body: bool
    """True if the check needs the bodies of messages."""

    def __call__(self, envelope: Envelope) -> str:
        """Return the result of the check, as a text for the user."""
        ...


class NoKeys:
    """The check without keys: a signature cannot be verified."""

    needs_body = False

    def __call__(self, envelope: Envelope) -> str:
        """Return `unverified`, or `unsigned` if the message has no signature."""
        return UNVERIFIED if envelope.proof or envelope.authorization else UNSIGNED


class KeySetCheck:
    """The check with the public keys of all services, or with the secret that they share."""

    needs_body = True

    def __init__(self, keys: KeyLookup, *, leeway: float) -> None:
        self._keys = keys
        self._leeway = leeway

    def __call__(self, envelope: Envelope) -> str:
        """Return `verified`, `unsigned`, `unverified`, or `invalid` with the reason."""
        if not (envelope.proof or envelope.authorization):
            return UNSIGNED
        if envelope.unread_bytes is not None:
            return f"{UNVERIFIED} (large)"
        try:
            self._verify(envelope)
        except Expired:
            return f"{VERIFIED} (expired)"
        except UnknownKey:  # for example a key that was added after the start of the command
            return f"{UNVERIFIED} (unknown key)"
        except BusError as error:
            return f"invalid ({one_line(str(error)[:MAX_REASON_LENGTH])})"
        return VERIFIED

    def _verify(self, envelope: Envelope) -> None:
        now = time.time()
        if envelope.role != "request":
            verify_proof(envelope, self._keys, now=now, leeway=self._leeway)
            return
        token = verify_service_token(
            (envelope.authorization or "").removeprefix(BEARER),
            self._keys,
            audience=envelope.type.partition(".")[0],
            now=now,
            leeway=self._leeway,
        )
        if token.issuer != envelope.source:
            raise ConfigurationError("app_id is not the issuer of the token")


class PublicKeys:
    """The keys of a key set, as they were when the command started."""

    algorithms: frozenset[Any] = frozenset({"EdDSA", "ES256"})

    def __init__(self, text: bytes) -> None:
        self._keys = read_key_set(text).keys

    def get(self, kid: str) -> Any:
        """Return the keys with this id."""
        return self._keys.get(kid, ())


async def load_check(settings: Settings) -> SignatureCheck:
    """Return the check that the settings allow.

    Raises:
        ConfigurationError: `BUS_JWKS` or the shared secret is set, and is invalid.
    """
    if settings.auth == "dev" and settings.key is not None:
        secret = settings.key.get_secret_value()
        return KeySetCheck(shared_secret_keyring("", secret), leeway=settings.clock_leeway)
    if settings.auth == "on" and settings.jwks is not None:
        try:
            text = await public_key_source(settings.jwks)()
        except OSError as error:
            raise ConfigurationError(
                f"BUS_JWKS: the key set cannot be read ({type(error).__name__}). Check the path "
                "or URL."
            ) from None
        return KeySetCheck(PublicKeys(text), leeway=settings.clock_leeway)
    return NoKeys()
