"""The authentication and authorization of one endpoint's messages."""

from bus.contracts.contract import Contract
from bus.errors import BusError, Expired, PermissionDenied, Unauthenticated, Undecodable, UnknownKey
from bus.messaging.envelope import Envelope
from bus.security.reply_to import is_direct_reply_to, is_reply_queue_of
from bus.security.signer import Signer
from bus.security.verifier import FOREIGN_REPLY_TO, VerifiedToken, Verifier

__all__ = ["EndpointGuard"]


class EndpointGuard:
    """One endpoint's way in, and the way out of its answers."""

    def __init__(self, contract: Contract, verifier: Verifier, signer: Signer) -> None:
        self.signer = signer
        self._contract = contract
        self._permission = contract.permission
        self._verifier = verifier
        self._clock = verifier.clock
        self._tokens = verifier.tokens

    def authorize(self, envelope: Envelope) -> BusError | None:
        """Why this message must not be handled; None where it may. Not noted for a key that may be known soon: `UnknownKey`."""
        known = self._tokens.get(envelope.authorization)
        if known is not None and self._is_authorized(known, envelope):
            return None
        try:
            self._check(envelope)
        except (UnknownKey, Expired) as error:  # nobody's fault
            return error
        except BusError as error:
            self._verifier.record_rejection(envelope, error)
            return error
        return None

    def _is_authorized(self, known: VerifiedToken, envelope: Envelope) -> bool:
        """Whether a token that was checked before is all that there is to see; what is not so is looked at again, by `_check`."""
        return (
            envelope.role == "request"
            and envelope.fault is None
            and known.issuer == envelope.source
            and self._permission in known.permissions
            and (envelope.reply_to is None or is_reply_queue_of(known.issuer, envelope.reply_to))
            and self._clock() < known.until
        )

    def _check(self, envelope: Envelope) -> None:
        if envelope.fault:
            raise Undecodable(envelope.fault)
        if envelope.role != "request":
            self._verifier.verify_proof(envelope, self._contract)
            return
        known = self._verifier.verify_token(envelope)
        if envelope.reply_to is not None and not self._verifier.may_reply_to(
            known.issuer, envelope.reply_to, direct=True
        ):
            raise Unauthenticated(FOREIGN_REPLY_TO)
        if self._permission not in known.permissions:
            raise PermissionDenied(f"{known.issuer} has no right to {self._permission}")

    def may_reply(self, envelope: Envelope) -> bool:
        """Whether a refusal can be told where the message asks for it: anyone may have written that, and the sender's name.

        Only who is in the grants has a user at the broker, which lets us answer nobody else; and us only where we ask ourselves.
        """
        reply_to, source = envelope.reply_to, envelope.source
        if reply_to is None or not self._verifier.may_reply_to(
            source, reply_to, direct=envelope.role == "request"
        ):
            return False
        return is_direct_reply_to(reply_to) or self._verifier.is_known(source, self._permission)

    async def recheck_with_new_keys(self, envelope: Envelope) -> BusError | None:
        """The same after a look for new keys; and now it is noted."""
        await self._verifier.refresh_keys()
        error = self.authorize(envelope)
        if isinstance(error, UnknownKey):
            self._verifier.record_rejection(envelope, error)
        return error

    def refresh_keys(self) -> None:
        """Look for new keys while a message waits for them."""
        self._verifier.refresh_keys_soon()
