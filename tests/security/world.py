"""A ledger with authentication, its callers, and the forgeries that an attacker can build."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.contracts.contract import Message, contract_of
from bus.messaging.envelope import Envelope
from bus.messaging.topology.names import event_queue, job_queue, reply_queue, request_queue
from bus.runtime.router import Router
from bus.security.keyring import Keyring
from bus.security.keys import PrivateKey
from bus.security.proofs import expiry_override
from bus.security.signer import Signer
from tests.security.yard import NOW, Yard, bearer, jws, parts_of
from tests.unit.fakes import FakeTransport, Sent, receiver_of
from tests.unit.ledger import Add, BooksClosed, CloseBooks, Total

BODY = b'{"year": 1999, "note": "Eleonora Quist"}'
SECRET = "Eleonora Quist"
DAY = 24 * 3600
OPERATOR = "ops"


@dataclass
class World:
    """Owners of keys: `office` may call and submit, `mail` has no rights, `ops` is an operator."""

    yard: Yard
    rings: dict[str, Keyring]
    signers: dict[Keyring, Signer] = field(default_factory=dict)

    @classmethod
    async def started(cls) -> "World":
        yard = Yard()
        for service in ("ledger", "office", "mail"):
            yard.key(service)
        yard.key(OPERATOR, role="operator")
        yard.grant("office", call=(contract_of(Add), contract_of(CloseBooks)))
        closed = (contract_of(BooksClosed),)
        yard.grant("ledger", publish=closed, consume=closed)
        return cls(
            yard,
            {name: await yard.started(name) for name in ("ledger", "office", "mail", OPERATOR)},
        )

    def signer(self, service: str) -> Signer:
        """Return the signer of the service's keyring; a bus too has one signer for each keyring."""
        ring = self.rings[service]
        if ring not in self.signers:
            self.signers[ring] = self.yard.signer(service, ring)
        return self.signers[ring]

    def key(self, owner: str) -> PrivateKey:
        return self.yard.private[owner][-1]

    # --- Genuine messages ---

    def request(self, type_: str = "ledger.add.v1", **attributes: Any) -> Envelope:
        known = {"reply_to": reply_queue("office", "1"), "queue": request_queue(contract_of(Add))}
        return self.signer("office").sign(
            message("request", type_, "office", **{**known, **attributes})
        )

    def job(self, sender: str = "office", **attributes: Any) -> Envelope:
        known = {
            "reply_to": reply_queue(sender, "1"),
            "queue": job_queue(contract_of(CloseBooks)),
            "expires": int((NOW + DAY) * 1000),
        }
        return self.signer(sender).sign(
            message("job", "ledger.close.v1", sender, **{**known, **attributes})
        )

    def event(self, sender: str = "ledger", **attributes: Any) -> Envelope:
        known = {
            "queue": event_queue("ledger", contract_of(BooksClosed)),
            "expires": int((NOW + DAY) * 1000),
        }
        return self.signer(sender).sign(
            message("event", "ledger.closed.v1", sender, **{**known, **attributes})
        )

    def replayed(
        self, job: Envelope, *, operator: str = OPERATOR, hours: float = 1, **changes: Any
    ) -> Envelope:
        """Return the job with an operator's expiry override."""
        expires = int((self.yard.clock() + hours * 3600) * 1000)
        how = {
            "queue": job.queue,
            "actor": "ida",
            "reason": "the printer was down",
            "expires": expires,
            "count": 1,
            **changes,
        }
        word = expiry_override(
            self.rings[operator].signing_key(), job, now=self.yard.clock(), **how
        )
        return job.replace(expiry_override=word, expires=expires)

    # --- Forgeries ---

    def forged(
        self,
        envelope: Envelope,
        header: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        by: str | None = None,
    ) -> Envelope:
        """Return the message with a new token, signed with the sender's key.

        Args:
            envelope: The message.
            header: Changed header parameters; None removes one.
            claims: Changed claims; None removes one.
            by: The owner of the key, if it is not the sender.
        """
        old_header, old_claims, _ = parts_of(token_of(envelope))
        return with_token(
            envelope,
            jws(
                changed(old_header, header),
                changed(old_claims, claims),
                self.key(by or envelope.source),
            ),
        )


def message(role: Any, type_: str, source: str, **attributes: Any) -> Envelope:
    known = {"id": "m-1", "body": BODY, "correlation_id": "c-1", "timestamp": int(NOW)}
    return Envelope(role=role, type=type_, source=source, **{**known, **attributes})


def changed(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in {**old, **(new or {})}.items() if value is not None}


def token_of(envelope: Envelope) -> str:
    return bearer(envelope) if envelope.role == "request" else envelope.proof or ""


def with_token(envelope: Envelope, token: str) -> Envelope:
    return (
        envelope.replace(authorization=f"Bearer {token}")
        if envelope.role == "request"
        else envelope.replace(proof=token)
    )


MODELS: Mapping[str, type[Message]] = {"request": Add, "job": CloseBooks, "event": BooksClosed}


class Ledger:
    """The ledger service, which records the messages that it handles and those that it sends."""

    def __init__(
        self,
        world: World,
        role: str,
        *,
        answer: Callable[[Envelope], Any] = lambda _: None,
        direct: bool = False,
    ) -> None:
        """Serve one contract.

        Args:
            world: The keys and grants.
            role: The kind of message that the service handles.
            answer: The transport's answer to each publish.
            direct: True if the broker user may publish to the default exchange.
        """
        self.handled: list[Any] = []
        self.transport = FakeTransport(answer=answer)
        model = MODELS[role]
        router = Router("ledger")
        register = {"request": router.request, "job": router.job, "event": router.event}[role]
        # mypy cannot check one call for all three kinds.
        register(model)(self._handler(role))  # type: ignore[operator]
        self.gate = world.yard.gate("ledger", world.rings["ledger"], model, direct=direct)
        self.receiver = receiver_of(
            router,
            self.transport,
            gate=self.gate,
            signer=world.signer("ledger"),
            clock=world.yard.clock,
        )

    def _handler(self, role: str) -> Callable[[Any], Awaitable[Any]]:
        async def handle(message: Any) -> Any:
            self.handled.append(message)
            return None if role == "event" else Total(total=1)

        return handle

    @property
    def sent(self) -> list[Sent]:
        return self.transport.sent


def codes(sent: list[Sent]) -> list[str]:
    """Return the error code of each error reply or dead letter; "None" for other messages."""
    return [str(each.envelope.headers.get("dead-code") or each.envelope.error) for each in sent]


def as_json(value: object) -> str:
    return json.dumps(value)
