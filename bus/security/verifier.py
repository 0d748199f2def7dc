"""Who sent it: what goes out is signed, and what comes in is held to that before anything is done with it.

Both are plain functions and no coroutines: the steady cost of a request is a dictionary look-up on either side.
"""

import asyncio
import logging as levels
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from bus.contracts.contract import Contract
from bus.errors import BusError, Expired, PermissionDenied, Unauthenticated, Undecodable, UnknownKey
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.topology.model import service_of
from bus.security.grants import AccessPolicy
from bus.security.keyring import Keyring
from bus.security.reply_to import is_direct, is_of
from bus.security.tokens import TOKEN_LIFE, ServiceToken, check_proof, check_token, message_proof, service_token

__all__ = ["REPLY_SCOPE", "Gate", "Signer", "Verifier", "sign"]

log = levels.getLogger("bus.auth")

BEARER = "Bearer "
REPLY_SCOPE = "bus/reply"
"""All that the token on a reply is good for. No contract has this permission: none has a slash in it."""
RENEW_BEFORE = 60.0
"""Seconds before its end that a token is made anew: it still has to be valid on arrival, by another machine's clock."""
NOT_ITS_OWN = "its reply_to is no queue for replies of its sender"
MOST_TOKENS = 1024
"""Tokens remembered, of each kind; one for each service that this one speaks with."""


def sign(signer: "Signer") -> Middleware:
    """Sign what is sent. Innermost, so that each attempt carries fresh proof."""

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return inner(signer.signed(envelope))

        return call

    return layer


class Signer:
    """Speaks for one service."""

    def __init__(self, service: str, ring: Keyring, rights: Callable[[], AccessPolicy], *, clock: Callable[[], float] = time.time) -> None:
        self._service = service
        self._ring = ring
        self._rights = rights
        self._clock = clock
        self._made: dict[tuple[str, bool], tuple[str, float]] = {}
        ring.on_change.append(self._made.clear)

    def signed(self, envelope: Envelope) -> Envelope:
        """A request with a token for the service that is asked; an event or job with a proof of its own."""
        if envelope.traffic == "request":
            return envelope.evolve(authorization=self.authorization(service_of(envelope.type)))
        return envelope.evolve(proof=message_proof(self._ring.signing(), envelope, now=self._clock()))

    def authorization(self, audience: str, *, answers: bool = False) -> str:
        """The header with a token for `audience`: made once, and used until shortly before its end."""
        made = self._made.get((audience, answers))
        now = self._clock()
        if made is not None and now < made[1] <= now + TOKEN_LIFE:  # else the clock was put back
            return made[0]
        scope = REPLY_SCOPE if answers else " ".join(sorted(self._rights().scope(self._service)))
        token = service_token(self._ring.signing(), issuer=self._service, audience=audience, scope=scope, now=now)
        if len(self._made) >= MOST_TOKENS:
            self._made.clear()
        self._made[audience, answers] = (f"{BEARER}{token}", now + TOKEN_LIFE - RENEW_BEFORE)
        return f"{BEARER}{token}"

    def proven(self, answer: Envelope, audience: str, *, refused: Envelope | None = None) -> Envelope:
        """An answer with a proof about itself: for one that lies a while, or that goes to somebody who did not say who he is.

        A token in such hands could be used again; this cannot. `refused` is what an error answers.
        """
        proof = message_proof(self._ring.signing(), answer, now=self._clock(), audience=audience, refused=refused)
        return answer.evolve(proof=proof)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A token that was checked before."""

    issuer: str
    until: float
    permissions: frozenset[str]
    """Its scope, and of that only what the issuer is granted."""
    answers: bool


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
        self.refused: Counter[str] = Counter()
        """How often, by reason."""
        self.clock = clock
        self._service = service
        self._ring = ring
        self._rights = rights
        self._leeway = leeway
        self._direct = direct
        self._tokens: dict[str | None, Remembered] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        ring.on_change.append(self._tokens.clear)

    @property
    def tokens(self) -> Mapping[str | None, Remembered]:
        """Those that were checked before, by the header that they came in."""
        return self._tokens

    def remembered(self, envelope: Envelope) -> Remembered:
        """What the token says that came with `envelope`."""
        header = envelope.authorization
        now = self.clock()
        known = self._tokens.get(header)
        if known is None or known.until <= now:
            known = self._learned(header, now)
        if known.issuer != envelope.source:
            raise Unauthenticated("its app_id is not its token's issuer")
        return known

    def _learned(self, header: str | None, now: float) -> Remembered:
        if header is None:
            raise Unauthenticated("it has no token")
        if not header.startswith(BEARER):
            raise Unauthenticated("its authorization is no bearer token")
        token = check_token(header[len(BEARER) :], self._ring, audience=self._service, now=now, leeway=self._leeway)
        self._tokens.pop(header, None)
        if len(self._tokens) >= MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        known = self._tokens[header] = self._granted(token)
        return known

    def _granted(self, token: ServiceToken) -> Remembered:
        rights = self._rights()
        return Remembered(
            issuer=token.issuer,
            until=token.until,
            permissions=frozenset(each for each in token.scope if rights.may_call(token.issuer, each)),
            answers=token.scope == {REPLY_SCOPE},
        )

    def hold_to_proof(self, envelope: Envelope, contract: Contract) -> None:
        """Raises where an event or job is not its sender's, or the sender may not send it."""
        check_proof(envelope, self._ring, now=self.clock(), leeway=self._leeway)
        permission, rights, source = contract.permission, self._rights(), envelope.source
        if contract.kind == "event":
            allowed = source == contract.service and rights.may_publish(source, permission)
        else:
            allowed = rights.may_call(source, permission)
        if not allowed:
            raise PermissionDenied(f"{source} has no right to {permission}")
        if envelope.reply_to is not None and not is_of(source, envelope.reply_to):
            raise Unauthenticated(NOT_ITS_OWN)

    def is_known(self, service: str, permission: str) -> bool:
        """Whether the broker has a user for it, to its knowledge; of this service itself, whether it asks for this."""
        rights = self._rights()
        return rights.may_call(service, permission) if service == self._service else rights.knows(service)

    def may_answer(self, service: str, reply_to: str, *, direct: bool) -> bool:
        """Whether a request (`direct`) or job of this service can be answered there."""
        return is_of(service, reply_to) or (direct and self._direct and is_direct(reply_to))

    def answer_refusal(
        self, answer: Envelope, service: str, *, lasting: bool = False, proofs: Collection[str] | None = None
    ) -> BusError | None:
        """Why an answer is not that of `service`, which was asked; None where it is. `lasting`: a job's, for which no token is enough.

        `proofs`: the tokens or proofs with which was asked; None: not to be compared.
        """
        known = None if lasting else self._tokens.get(answer.authorization)
        if known is not None and known.answers and known.issuer == service == answer.source and self.clock() < known.until:
            return None
        try:
            self._check_answer(answer, service, lasting=lasting, proofs=proofs)
        except BusError as error:
            return error
        return None

    def _check_answer(self, answer: Envelope, service: str, *, lasting: bool, proofs: Collection[str] | None) -> None:
        if answer.source != service:
            raise Unauthenticated("its app_id is not the service that was asked")
        if lasting or answer.proof is not None:
            check_proof(answer, self._ring, now=self.clock(), leeway=self._leeway, audience=self._service, asked_with=proofs)
        elif not self.remembered(answer).answers:
            raise Unauthenticated("its token is not for answers")

    async def refetch(self) -> None:
        """Look for new keys, unless that was a moment ago."""
        await self._ring.refetch()

    def refetch_soon(self) -> None:
        """As `refetch`, meanwhile."""
        fetch = asyncio.get_running_loop().create_task(self._ring.refetch())
        self._fetches.add(fetch)
        fetch.add_done_callback(self._fetches.discard)

    def note(self, envelope: Envelope, error: BusError) -> None:
        """Count and log a refusal: with its reason, and nothing of what was to prove it."""
        self.refused[f"{error.code}: {error}" if isinstance(error, Unauthenticated) else error.code] += 1
        facts = {"type": envelope.type, "message_id": envelope.id, "app_id": envelope.source, "queue": envelope.queue}
        log.warning("refused", extra={**facts, "code": error.code, "why": str(error)})


class Gate:
    """One endpoint's way in, and the way out of its answers."""

    def __init__(self, contract: Contract, verifier: Verifier, signer: Signer) -> None:
        self.signer = signer
        self._contract = contract
        self._permission = contract.permission
        self._verifier = verifier
        self._clock = verifier.clock
        self._tokens = verifier.tokens

    def refusal(self, envelope: Envelope) -> BusError | None:
        """Why this message must not be handled; None where it may. Not noted for a key that may be known soon: `UnknownKey`."""
        known = self._tokens.get(envelope.authorization)
        if known is not None and self._fits(known, envelope):
            return None
        try:
            self._check(envelope)
        except (UnknownKey, Expired) as error:  # nobody's fault
            return error
        except BusError as error:
            self._verifier.note(envelope, error)
            return error
        return None

    def _fits(self, known: Remembered, envelope: Envelope) -> bool:
        """Whether a token that was checked before is all that there is to see; what is not so is looked at again, by `_check`."""
        return (
            envelope.traffic == "request"
            and envelope.fault is None
            and known.issuer == envelope.source
            and self._permission in known.permissions
            and (envelope.reply_to is None or is_of(known.issuer, envelope.reply_to))
            and self._clock() < known.until
        )

    def _check(self, envelope: Envelope) -> None:
        if envelope.fault:
            raise Undecodable(envelope.fault)
        if envelope.traffic != "request":
            self._verifier.hold_to_proof(envelope, self._contract)
            return
        known = self._verifier.remembered(envelope)
        if envelope.reply_to is not None and not self._verifier.may_answer(known.issuer, envelope.reply_to, direct=True):
            raise Unauthenticated(NOT_ITS_OWN)
        if self._permission not in known.permissions:
            raise PermissionDenied(f"{known.issuer} has no right to {self._permission}")

    def may_tell(self, envelope: Envelope) -> bool:
        """Whether a refusal can be told where the message asks for it: anyone may have written that, and the sender's name.

        Only who is in the grants has a user at the broker, which lets us answer nobody else; and us only where we ask ourselves.
        """
        reply_to, source = envelope.reply_to, envelope.source
        if reply_to is None or not self._verifier.may_answer(source, reply_to, direct=envelope.traffic == "request"):
            return False
        return is_direct(reply_to) or self._verifier.is_known(source, self._permission)

    async def again(self, envelope: Envelope) -> BusError | None:
        """The same after a look for new keys; and now it is noted."""
        await self._verifier.refetch()
        error = self.refusal(envelope)
        if isinstance(error, UnknownKey):
            self._verifier.note(envelope, error)
        return error

    def later(self) -> None:
        """Look for new keys while a message waits for them."""
        self._verifier.refetch_soon()
