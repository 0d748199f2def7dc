"""The signer of one service: service tokens for requests and replies, message proofs for everything else."""

import time
from collections.abc import Callable

from bus.messaging.envelope import Envelope
from bus.messaging.topology.names import service_of
from bus.security.grants import AccessPolicy
from bus.security.keyring import Keyring
from bus.security.proofs import message_proof
from bus.security.tokens import TOKEN_LIFETIME_SECONDS, service_token

__all__ = ["REPLY_SCOPE", "Signer"]

BEARER = "Bearer "


REPLY_SCOPE = "bus/reply"
"""All that the token on a reply is good for. No contract has this permission: none has a slash in it."""


RENEW_BEFORE_SECONDS = 60.0
"""Seconds before its end that a token is made anew: it still has to be valid on arrival, by another machine's clock."""


class Signer:
    """Speaks for one service."""

    def __init__(
        self,
        service: str,
        ring: Keyring,
        rights: Callable[[], AccessPolicy],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._ring = ring
        self._rights = rights
        self._clock = clock
        self._made: dict[tuple[str, bool], tuple[str, float]] = {}
        ring.on_change.append(self._made.clear)

    def sign(self, envelope: Envelope) -> Envelope:
        """A request with a token for the service that is asked; an event or job with a proof of its own."""
        if envelope.role == "request":
            return envelope.replace(authorization=self.authorization(service_of(envelope.type)))
        return envelope.replace(
            proof=message_proof(self._ring.signing_key(), envelope, now=self._clock())
        )

    def authorization(self, audience: str, *, for_replies: bool = False) -> str:
        """The header with a token for `audience`: made once, and used until shortly before its end."""
        made = self._made.get((audience, for_replies))
        now = self._clock()
        if (
            made is not None and now < made[1] <= now + TOKEN_LIFETIME_SECONDS
        ):  # else the clock was put back
            return made[0]
        scope = (
            REPLY_SCOPE if for_replies else " ".join(sorted(self._rights().scope(self._service)))
        )
        token = service_token(
            self._ring.signing_key(), issuer=self._service, audience=audience, scope=scope, now=now
        )
        if len(self._made) >= MAX_CACHED_TOKENS:
            self._made.clear()
        self._made[audience, for_replies] = (
            f"{BEARER}{token}",
            now + TOKEN_LIFETIME_SECONDS - RENEW_BEFORE_SECONDS,
        )
        return f"{BEARER}{token}"

    def authorize_reply(self, reply: Envelope, audience: str) -> Envelope:
        """Return a reply with a token for the service that sent the request."""
        return reply.replace(authorization=self.authorization(audience, for_replies=True))

    def sign_reply(
        self, answer: Envelope, audience: str, *, refused: Envelope | None = None
    ) -> Envelope:
        """An answer with a proof about itself: for one that lies a while, or that goes to somebody who did not say who he is.

        A token in such hands could be used again; this cannot. `refused` is what an error answers.
        """
        proof = message_proof(
            self._ring.signing_key(), answer, now=self._clock(), audience=audience, refused=refused
        )
        return answer.replace(proof=proof)


MAX_CACHED_TOKENS = 1024
"""Tokens remembered, of each kind; one for each service that this one speaks with."""
