"""The authentication and authorization of one endpoint's messages."""

from bus.contracts.contract import Contract
from bus.errors import BusError, Expired, PermissionDenied, Unauthenticated, Undecodable, UnknownKey
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import PARKED
from bus.security.reply_to import is_direct_reply_to, is_reply_queue_of
from bus.security.verifier import FOREIGN_REPLY_TO, VerifiedToken, Verifier

__all__ = ["EndpointGuard"]


class EndpointGuard:
    """The guard of one endpoint. The guard authorizes the endpoint's messages."""

    def __init__(self, contract: Contract, verifier: Verifier, *, is_open: bool = False) -> None:
        """Create the guard of a contract.

        Args:
            contract: Contract of the endpoint.
            verifier: Verifier of this service.
            is_open: True if a verified sender needs no permission for the contract.
        """
        self._contract = contract
        self._permission = contract.permission
        self._is_open = is_open
        self._verifier = verifier
        self._clock = verifier.clock
        self._tokens = verifier.tokens

    def authorize(self, envelope: Envelope) -> BusError | None:
        """Return the error that rejects the message. If the message may be handled, return None.

        If a right is missing, the grants are read again, because the right can be new.

        Every rejection is counted and logged, except `UnknownKey`, `Expired`, and the first
        rejection of a message that waits for a right. An unknown key may be published soon, and an
        expired message was valid before.
        """
        token = self._tokens.get(envelope.authorization)
        if token is not None and self._is_authorized(token, envelope):
            return None
        error = self._find_error(envelope)
        if isinstance(error, PermissionDenied) and self._verifier.refresh_grants():
            error = self._find_error(envelope)
        if not (
            error is None
            or isinstance(error, UnknownKey | Expired)
            or self.may_wait(envelope, error)
        ):
            self._verifier.record_rejection(envelope, error)
        return error

    def may_wait(self, envelope: Envelope, error: BusError) -> bool:
        """Return True if the message waits once, because the missing key or grant can be new.

        A request does not wait, because its caller waits for the reply. A service never gets the
        right to publish another service's event.
        """
        if envelope.role == "request" or PARKED in envelope.headers:
            return False
        return isinstance(error, UnknownKey) or (
            isinstance(error, PermissionDenied)
            and (self._contract.kind != "event" or envelope.source == self._contract.service)
        )

    def _find_error(self, envelope: Envelope) -> BusError | None:
        try:
            self._check(envelope)
        except BusError as error:
            return error
        return None

    def _is_authorized(self, token: VerifiedToken, envelope: Envelope) -> bool:
        """Return True if the cached token authorizes the message.

        If the result is False, `_check` must check the message in full.
        """
        return (
            envelope.role == "request"
            and envelope.fault is None
            and token.issuer == envelope.source
            and (self._permission in token.permissions or self._is_open_for(token))
            and (envelope.reply_to is None or is_reply_queue_of(token.issuer, envelope.reply_to))
            and self._clock() < token.until
        )

    def _check(self, envelope: Envelope) -> None:
        if envelope.fault:
            raise Undecodable(envelope.fault)
        if envelope.role != "request":
            self._verifier.verify_proof(envelope, self._contract)
            return
        token = self._verifier.verify_token(envelope)
        if envelope.reply_to is not None and not self._verifier.may_reply_to(
            token.issuer, envelope.reply_to, direct=True
        ):
            raise Unauthenticated(FOREIGN_REPLY_TO)
        if self._permission not in token.permissions and not self._is_open_for(token):
            raise self._verifier.missing_permission(token, self._permission)

    def _is_open_for(self, token: VerifiedToken) -> bool:
        """Return True if each verified sender may send the request.

        The token of a reply is not enough. Its receiver could use it as the token of a request.
        """
        return self._is_open and not token.is_for_replies

    def may_reply(self, envelope: Envelope) -> bool:
        """Return True if a rejection can be sent to the `reply_to` of the message.

        An attacker can forge `reply_to` and the name of the sender. The broker accepts a reply
        only if the receiver has grants, because only services with grants have a broker user. If
        the named sender is this service, its grants must permit it to send messages of this
        endpoint's contract.
        """
        reply_to, source = envelope.reply_to, envelope.source
        if reply_to is None or not self._verifier.may_reply_to(
            source, reply_to, direct=envelope.role == "request"
        ):
            return False
        return is_direct_reply_to(reply_to) or self._verifier.is_known(source, self._permission)

    async def recheck_with_new_keys(self, envelope: Envelope) -> BusError | None:
        """Read the keys again and repeat `authorize`.

        If the key is still unknown, the rejection is counted and logged.
        """
        await self._verifier.refresh_keys()
        error = self.authorize(envelope)
        if isinstance(error, UnknownKey):
            self._verifier.record_rejection(envelope, error)
        return error

    def refresh_keys(self) -> None:
        """Start a task that reads the keys again, because a message has an unknown key."""
        self._verifier.refresh_keys_soon()
