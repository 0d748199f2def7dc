"""Who sent it: what goes out is signed, and what comes in is held to that before anything is done with it.

Both are plain functions and no coroutines: the steady cost of a request is a dictionary look-up on either side.
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
from bus.security.grants import AccessPolicy
from bus.security.keyring import Keyring
from bus.security.proofs import verify_proof
from bus.security.reply_to import is_direct_reply_to, is_reply_queue_of
from bus.security.signer import BEARER, MAX_CACHED_TOKENS, REPLY_SCOPE
from bus.security.tokens import ServiceToken, verify_service_token

__all__ = ["Verifier"]

log = levels.getLogger("bus.auth")

FOREIGN_REPLY_TO = "its reply_to is no queue for replies of its sender"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A token that was checked before."""

    issuer: str
    until: float
    permissions: frozenset[str]
    """Its scope, and of that only what the issuer is granted."""
    is_for_replies: bool


class Verifier:
    """Holds what one service receives to what proves it."""

    def __init__(
        self,
        service: str,
        ring: Keyring,
        rights: Callable[[], AccessPolicy],
        *,
        clock: Callable[[], float] = time.time,
        leeway: float = 30,
        direct: bool = True,
    ) -> None:
        """`leeway`: seconds by which two machines' clocks may differ. `direct`: whether RabbitMQ's direct reply-to can be answered."""
        self.rejections: Counter[str] = Counter()
        """How often, by reason."""
        self.clock = clock
        self._service = service
        self._ring = ring
        self._rights = rights
        self._leeway = leeway
        self._direct = direct
        self._tokens: dict[str | None, VerifiedToken] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        ring.on_change.append(self._tokens.clear)

    @property
    def tokens(self) -> Mapping[str | None, VerifiedToken]:
        """Those that were checked before, by the header that they came in."""
        return self._tokens

    def verify_token(self, envelope: Envelope) -> VerifiedToken:
        """What the token says that came with `envelope`."""
        header = envelope.authorization
        now = self.clock()
        known = self._tokens.get(header)
        if known is None or known.until <= now:
            known = self._verify_and_cache(header, now)
        if known.issuer != envelope.source:
            raise Unauthenticated("its app_id is not its token's issuer")
        return known

    def _verify_and_cache(self, header: str | None, now: float) -> VerifiedToken:
        if header is None:
            raise Unauthenticated("it has no token")
        if not header.startswith(BEARER):
            raise Unauthenticated("its authorization is no bearer token")
        token = verify_service_token(
            header[len(BEARER) :], self._ring, audience=self._service, now=now, leeway=self._leeway
        )
        self._tokens.pop(header, None)
        if len(self._tokens) >= MAX_CACHED_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        known = self._tokens[header] = self._granted(token)
        return known

    def _granted(self, token: ServiceToken) -> VerifiedToken:
        rights = self._rights()
        return VerifiedToken(
            issuer=token.issuer,
            until=token.until,
            permissions=frozenset(
                each for each in token.scope if rights.may_call(token.issuer, each)
            ),
            is_for_replies=token.scope == {REPLY_SCOPE},
        )

    def verify_proof(self, envelope: Envelope, contract: Contract) -> None:
        """Raises where an event or job is not its sender's, or the sender may not send it."""
        verify_proof(envelope, self._ring, now=self.clock(), leeway=self._leeway)
        permission, rights, source = contract.permission, self._rights(), envelope.source
        if contract.kind == "event":
            allowed = source == contract.service and rights.may_publish(source, permission)
        else:
            allowed = rights.may_call(source, permission)
        if not allowed:
            raise PermissionDenied(f"{source} has no right to {permission}")
        if envelope.reply_to is not None and not is_reply_queue_of(source, envelope.reply_to):
            raise Unauthenticated(FOREIGN_REPLY_TO)

    def is_known(self, service: str, permission: str) -> bool:
        """Whether the broker has a user for it, to its knowledge; of this service itself, whether it asks for this."""
        rights = self._rights()
        return (
            rights.may_call(service, permission)
            if service == self._service
            else rights.knows(service)
        )

    def may_reply_to(self, service: str, reply_to: str, *, direct: bool) -> bool:
        """Whether a request (`direct`) or job of this service can be answered there."""
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
        """Why an answer is not that of `service`, which was asked; None where it is. `lasting`: a job's, for which no token is enough.

        `proofs`: the tokens or proofs with which was asked; None: not to be compared.
        """
        known = None if is_job else self._tokens.get(answer.authorization)
        if (
            known is not None
            and known.is_for_replies
            and known.issuer == service == answer.source
            and self.clock() < known.until
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
            raise Unauthenticated("its app_id is not the service that was asked")
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
            raise Unauthenticated("its token is not for answers")

    async def refresh_keys(self) -> None:
        """Look for new keys, unless that was a moment ago."""
        await self._ring.refresh()

    def refresh_keys_soon(self) -> None:
        """As `refetch`, meanwhile."""
        fetch = asyncio.get_running_loop().create_task(self._ring.refresh())
        self._fetches.add(fetch)
        fetch.add_done_callback(self._fetches.discard)

    def record_rejection(self, envelope: Envelope, error: BusError) -> None:
        """Count and log a refusal: with its reason, and nothing of what was to prove it."""
        self.rejections[
            f"{error.code}: {error}" if isinstance(error, Unauthenticated) else error.code
        ] += 1
        facts = {
            "type": envelope.type,
            "message_id": envelope.id,
            "app_id": envelope.source,
            "queue": envelope.queue,
        }
        log.warning("refused", extra={**facts, "code": error.code, "why": str(error)})
