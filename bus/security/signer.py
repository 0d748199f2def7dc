"""The signer of one service: tokens for requests and replies, proofs for all other messages."""

import time
from collections.abc import Callable

from bus.messaging.envelope import Envelope
from bus.messaging.topology.names import service_of
from bus.security.current_grants import CurrentGrants
from bus.security.keyring import Keyring
from bus.security.proofs import message_proof
from bus.security.tokens import TOKEN_LIFETIME_SECONDS, service_token

__all__ = ["REPLY_SCOPE", "Signer"]

BEARER = "Bearer "
REPLY_SCOPE = "bus/reply"
"""The scope of every reply's token. It is not a permission, because permissions have no slash."""
RENEW_BEFORE_SECONDS = 60.0
"""A cached token is replaced when its remaining validity falls to this number of seconds.

The token must still be valid when it arrives at a machine with a different clock.
"""
MAX_CACHED_TOKENS = 1024
"""Maximum number of tokens in the cache of a signer or verifier.

If the cache is full, a signer removes all tokens, and a verifier removes the oldest token.
"""


class Signer:
    """The signer of one service's messages."""

    def __init__(
        self,
        service: str,
        ring: Keyring,
        grants: CurrentGrants,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._ring = ring
        self._grants = grants
        self._clock = clock
        self._tokens: dict[tuple[str, bool], tuple[str, float]] = {}
        ring.on_change.append(self._tokens.clear)
        grants.on_change.append(self._tokens.clear)

    def sign(self, envelope: Envelope) -> Envelope:
        """Return the signed message. A request gets a token. An event or job gets a proof."""
        if envelope.role == "request":
            return envelope.replace(authorization=self.authorization(service_of(envelope.type)))
        return envelope.replace(
            proof=message_proof(self._ring.signing_key(), envelope, now=self._clock())
        )

    def authorization(self, audience: str, *, for_replies: bool = False) -> str:
        """Return an `authorization` header. Only the service `audience` accepts the token in it.

        The token is cached until shortly before its expiry.

        Args:
            audience: The service that accepts the token.
            for_replies: True if the token is valid only in replies.
        """
        cached = self._tokens.get((audience, for_replies))
        now = self._clock()
        # The clock may have been set back. If `cached[1]` is too high, create a new token.
        if cached is not None and now < cached[1] <= now + TOKEN_LIFETIME_SECONDS:
            return cached[0]
        granted = self._grants.policy.scope(self._service)
        scope = REPLY_SCOPE if for_replies else " ".join(sorted(granted))
        token = service_token(
            self._ring.signing_key(), issuer=self._service, audience=audience, scope=scope, now=now
        )
        if len(self._tokens) >= MAX_CACHED_TOKENS:
            self._tokens.clear()
        self._tokens[audience, for_replies] = (
            f"{BEARER}{token}",
            now + TOKEN_LIFETIME_SECONDS - RENEW_BEFORE_SECONDS,
        )
        return f"{BEARER}{token}"

    def authorize_reply(self, reply: Envelope, audience: str) -> Envelope:
        """Add a token to a reply. Only the service `audience` accepts the token."""
        return reply.replace(authorization=self.authorization(audience, for_replies=True))

    def sign_reply(
        self, answer: Envelope, audience: str, *, refused: Envelope | None = None
    ) -> Envelope:
        """Add a proof to a reply. The reply gets no token.

        Job updates and error replies to unauthenticated senders have a proof. An unauthenticated
        sender could copy a token into other replies, but the proof is valid for this reply only.

        Args:
            answer: The reply.
            audience: The service that receives the reply.
            refused: For an error reply, the message that the reply rejects.
        """
        proof = message_proof(
            self._ring.signing_key(), answer, now=self._clock(), audience=audience, refused=refused
        )
        return answer.replace(proof=proof)
