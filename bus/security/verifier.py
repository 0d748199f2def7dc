"""The verifier of one service. It authenticates each received message before it is handled.

Signing and verifying are functions, not coroutines. Tokens are cached. If a request's token is
cached, the client and the service each need only one dictionary look-up.
"""

import asyncio
import logging as levels
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from bus.contracts.contract import Contract
from bus.errors import BusError, PermissionDenied, Unauthenticated
from bus.messaging.envelope import Envelope
from bus.messaging.labels import message_facts, message_label, one_line
from bus.security.current_grants import CurrentGrants
from bus.security.keyring import Keyring
from bus.security.proofs import verify_proof
from bus.security.reply_to import is_direct_reply_to, is_reply_queue_of
from bus.security.signer import BEARER, MAX_CACHED_TOKENS, REPLY_SCOPE
from bus.security.tokens import ServiceToken, verify_service_token

__all__ = ["Verifier"]

log = levels.getLogger("bus.auth")

FOREIGN_REPLY_TO = "reply_to is not a reply queue of the sender"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A verified token in the cache."""

    issuer: str
    until: float
    """End of the token's validity, in seconds since the epoch. It includes the leeway."""
    scope: frozenset[str]
    """The permissions in the token."""
    permissions: frozenset[str]
    """The permissions in the token's scope that the issuer also has in the grants."""
    is_for_replies: bool
    """True if the token is valid only in replies."""


class Verifier:
    """The verifier of the messages that one service receives."""

    def __init__(
        self,
        service: str,
        ring: Keyring,
        grants: CurrentGrants,
        *,
        clock: Callable[[], float] = time.time,
        leeway: float = 30,
        direct: bool = True,
    ) -> None:
        """Build a verifier.

        Args:
            service: The service that receives the messages.
            ring: The keys of all services.
            grants: The grants of all services.
            clock: Returns seconds since the epoch.
            leeway: Seconds by which the clocks of two machines may differ.
            direct: True if this service may send replies to RabbitMQ's direct reply-to.
        """
        self.rejections: Counter[str] = Counter()
        """Rejected messages, counted by reason."""
        self.clock = clock
        self._service = service
        self._ring = ring
        self._grants = grants
        self._leeway = leeway
        self._direct = direct
        self._tokens: dict[str | None, VerifiedToken] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        ring.on_change.append(self._tokens.clear)
        grants.on_change.append(self._tokens.clear)

    @property
    def tokens(self) -> Mapping[str | None, VerifiedToken]:
        """The verified tokens by their `authorization` header."""
        return self._tokens

    def verify_token(self, envelope: Envelope) -> VerifiedToken:
        """Return the token of a request or reply. Check that the token is valid now.

        Raises:
            Unauthenticated: The token is missing or invalid, or its issuer is not the sender.
            UnknownKey: The key of the token is unknown.
        """
        header = envelope.authorization
        now = self.clock()
        token = self._tokens.get(header)
        if token is None or token.until <= now:
            token = self._verify_and_cache(header, now)
        if token.issuer != envelope.source:
            raise Unauthenticated("app_id is not the issuer of the token")
        return token

    def _verify_and_cache(self, header: str | None, now: float) -> VerifiedToken:
        if header is None:
            raise Unauthenticated("the message has no token")
        if not header.startswith(BEARER):
            raise Unauthenticated("authorization is not a bearer token")
        token = verify_service_token(
            header[len(BEARER) :], self._ring, audience=self._service, now=now, leeway=self._leeway
        )
        self._tokens.pop(header, None)
        if len(self._tokens) >= MAX_CACHED_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        verified = self._tokens[header] = self._apply_grants(token)
        return verified

    def _apply_grants(self, token: ServiceToken) -> VerifiedToken:
        rights = self._grants.policy
        return VerifiedToken(
            issuer=token.issuer,
            until=token.until,
            scope=token.scope,
            permissions=frozenset(
                permission
                for permission in token.scope
                if rights.may_call(token.issuer, permission)
            ),
            is_for_replies=token.scope == {REPLY_SCOPE},
        )

    def missing_permission(self, token: VerifiedToken, permission: str) -> PermissionDenied:
        """Return the error for a token without a permission.

        The text tells the author of a client which of two causes it has. Either the sender has no
        grant, or its grant is not in the scope of the token.
        """
        sender = token.issuer
        if permission in token.scope or not self._grants.policy.may_call(sender, permission):
            return PermissionDenied(f"{sender} has no right to {permission}")
        return PermissionDenied(
            f"{sender} has the grant {permission}, but the scope of its token does not list it. "
            f"Add {permission} to the claim scope, in which spaces separate the permissions."
        )

    def verify_proof(self, envelope: Envelope, contract: Contract) -> None:
        """Check that the named sender sent the event or job, and has the permission to send it.

        Raises:
            Unauthenticated: The proof is missing or invalid, or `reply_to` is not a reply queue of
                the sender.
            UnknownKey: The key of the proof is unknown.
            Expired: The message has expired, and no expiry override extends its time.
            PermissionDenied: The sender does not have the permission. Or this service does not have
                the permission to consume the event any more.
        """
        verify_proof(envelope, self._ring, now=self.clock(), leeway=self._leeway)
        permission, rights, source = contract.permission, self._grants.policy, envelope.source
        if contract.kind == "event":
            allowed = source == contract.service and rights.may_publish(source, permission)
        else:
            allowed = rights.may_call(source, permission)
        if not allowed:
            raise PermissionDenied(f"{source} has no right to {permission}")
        if contract.kind == "event" and not rights.may_consume(self._service, permission):
            raise PermissionDenied(f"{self._service} has no right to consume {permission}")
        if envelope.reply_to is not None and not is_reply_queue_of(source, envelope.reply_to):
            raise Unauthenticated(FOREIGN_REPLY_TO)

    def verify_own(self, envelope: Envelope) -> None:
        """Check that this service has sent the message.

        Raises:
            Unauthenticated: The proof is missing or invalid, or another service has sent it.
            UnknownKey: The key of the proof is unknown.
            Expired: The message has expired.
        """
        verify_proof(envelope, self._ring, now=self.clock(), leeway=self._leeway)
        if envelope.source != self._service:
            raise Unauthenticated("app_id is not this service")

    def is_known(self, service: str, permission: str) -> bool:
        """Return True if a rejection can be sent to `service`.

        Another service must have grants, because only services with grants have a broker user. This
        service must have `permission`.
        """
        rights = self._grants.policy
        return (
            rights.may_call(service, permission)
            if service == self._service
            else rights.knows(service)
        )

    def may_reply_to(self, service: str, reply_to: str, *, direct: bool) -> bool:
        """Return True if `reply_to` is an address at which `service` can receive a reply.

        Args:
            service: The sender of the request or job.
            reply_to: The address in the message.
            direct: True for a request. Only requests may use RabbitMQ's direct reply-to.
        """
        return is_reply_queue_of(service, reply_to) or (
            direct and self._direct and is_direct_reply_to(reply_to)
        )

    def check_reply(
        self,
        answer: Envelope,
        service: str,
        *,
        is_job: bool = False,
        proofs: Collection[str] | None = None,
    ) -> BusError | None:
        """Return the error that makes the reply invalid. If the reply is valid, return None.

        Args:
            answer: The reply or job update.
            service: The service that was called. It must be the sender of the reply.
            is_job: True for a job update. A job update needs a proof. A token is not sufficient.
            proofs: For an error reply, the tokens or proofs of the messages that the reply may
                reject. If None, the reply may reject any message.
        """
        token = None if is_job else self._tokens.get(answer.authorization)
        if (
            token is not None
            and answer.proof is None  # a proof is checked even if the token is known
            and token.is_for_replies
            and token.issuer == service == answer.source
            and self.clock() < token.until
        ):
            return None
        try:
            self._verify_reply(answer, service, is_job=is_job, proofs=proofs)
        except BusError as error:
            return error
        return None

    def _verify_reply(
        self, answer: Envelope, service: str, *, is_job: bool, proofs: Collection[str] | None
    ) -> None:
        if answer.source != service:
            raise Unauthenticated("app_id is not the service that was called")
        if is_job or answer.proof is not None:
            verify_proof(
                answer,
                self._ring,
                now=self.clock(),
                leeway=self._leeway,
                audience=self._service,
                asked_with=proofs,
            )
        elif not self.verify_token(answer).is_for_replies:
            raise Unauthenticated("the token is not for replies")

    def refresh_grants(self) -> bool:
        """Read the grants again, but at most once in `MIN_GRANTS_INTERVAL_SECONDS`.

        Returns:
            True if the permissions have changed.
        """
        return self._grants.refresh()

    async def refresh_keys(self) -> None:
        """Read the keys again, but at most once in `MIN_REFRESH_SECONDS`."""
        await self._ring.refresh()

    def refresh_keys_soon(self) -> None:
        """Start a task that reads the keys again, unless one runs. Do not wait for the task."""
        if self._fetches:
            return
        task = asyncio.get_running_loop().create_task(self._ring.refresh())
        self._fetches.add(task)
        task.add_done_callback(self._fetches.discard)

    def record_rejection(self, envelope: Envelope, error: BusError) -> None:
        """Count and log a rejected message.

        The log record contains the reason, but no token or proof.
        """
        self.rejections[
            f"{error.code}: {error}" if isinstance(error, Unauthenticated) else error.code
        ] += 1
        log.warning(
            "%s from %s rejected: %s",
            message_label(envelope),
            one_line(envelope.source) or "an unnamed sender",
            one_line(f"{type(error).__name__}: {error}"),
            extra=message_facts(envelope, app_id=envelope.source, code=error.code, why=str(error)),
        )
