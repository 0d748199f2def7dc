"""Message security of one service: one object for its identity and its payload cipher."""

from dataclasses import dataclass

from bus.contracts.contract import Contract
from bus.messaging.envelope import Envelope
from bus.security.anonymous import ANONYMOUS, AnonymousIdentity, OpenGuard
from bus.security.encryption import NO_ENCRYPTION, PayloadCipher
from bus.security.endpoint_guard import EndpointGuard
from bus.security.identity import ServiceIdentity

__all__ = ["NO_SECURITY", "Guard", "MessageSecurity"]

Guard = EndpointGuard | OpenGuard
"""The object that checks each message of one endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSecurity:
    """The identity and the payload cipher of one service."""

    identity: ServiceIdentity | AnonymousIdentity = ANONYMOUS
    cipher: PayloadCipher = NO_ENCRYPTION

    def guard(self, contract: Contract) -> Guard:
        """Return the guard of an endpoint that serves `contract`."""
        return self.identity.guard(contract)

    def protect_reply(
        self, reply: Envelope, request: Envelope, *, unauthorized: bool = False
    ) -> Envelope:
        """Return a reply, encrypted and signed for the sender of `request`.

        The sender of an `unauthorized` request may be an attacker, who could copy the token of a
        reply into other replies. So the reply to this sender has a proof, which is valid for that
        reply only.
        """
        reply = self.cipher.encrypt(reply)
        signer = self.identity.signer
        if unauthorized:
            return signer.sign_reply(reply, request.source, refused=request)
        return signer.authorize_reply(reply, request.source)

    def protect_update(self, update: Envelope, job: Envelope) -> Envelope:
        """Return a job's update, encrypted and signed for the submitter of `job`.

        The update has a proof instead of a token, for two reasons. The submitter may read the
        update so late that a token would have expired. And if the job is rejected, the receiver of
        the update may be an attacker, who could copy the token into other replies.
        """
        update = self.cipher.encrypt(update)
        refused = job if update.error is not None else None
        return self.identity.signer.sign_reply(update, job.source, refused=refused)


NO_SECURITY = MessageSecurity()
"""Security that neither signs, nor checks, nor encrypts."""
