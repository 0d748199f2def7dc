"""Message security of one service: an object that has the service's identity and payload cipher."""

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

    def guard(self, contract: Contract, *, is_open: bool = False) -> Guard:
        """Return the guard of an endpoint that serves `contract`.

        Args:
            contract: Contract of the endpoint.
            is_open: True if each verified service may send the contract, and the handler checks its
                rights.
        """
        return self.identity.guard(contract, is_open=is_open)

    def protect_reply(
        self, reply: Envelope, request: Envelope, *, unauthorized: bool = False
    ) -> Envelope:
        """Encrypt and sign a reply. Only the sender of `request` accepts the signature.

        The sender of an `unauthorized` request can be an attacker. An attacker could copy a
        reply's token into other replies. So the reply has a proof, which is valid only for one
        reply.
        """
        reply = self.cipher.encrypt(reply)
        signer = self.identity.signer
        if unauthorized:
            return signer.sign_reply(reply, request.source, refused=request)
        return signer.authorize_reply(reply, request.source)

    def protect_update(self, update: Envelope, job: Envelope) -> Envelope:
        """Encrypt and sign a job's update. Only the submitter of `job` accepts the signature.

        The update has a proof instead of a token, for two reasons. If the submitter reads the
        update late, a token would have expired. If the job is rejected, the submitter can be an
        attacker. An attacker could copy a token into other replies.
        """
        update = self.cipher.encrypt(update)
        refused = job if update.error is not None else None
        return self.identity.signer.sign_reply(update, job.source, refused=refused)


NO_SECURITY = MessageSecurity()
"""Security that neither signs, nor checks, nor encrypts."""
