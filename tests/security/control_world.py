"""Processes on a control channel without a broker, with keys, grants and a clock of the test."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from bus.contracts.contract import contract_of
from bus.errors import BusError
from bus.messaging.chaos_info import InstanceChaos
from bus.messaging.control import Ping, Question
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.policy_info import InstanceBreakers
from bus.messaging.ports.transport import Delivery, Transport
from bus.messaging.service_info import (
    InstanceInfo,
    InstanceState,
    InstanceStats,
    RememberedMessages,
)
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.control import COMMANDS
from bus.runtime.discovery.control_link import Member
from bus.runtime.discovery.discovery import Discovery
from bus.runtime.discovery.responder import Execute
from bus.security.control_security import ControlGuard, ControlSecurity, Subject
from bus.security.grants import Grants, ServiceGrants
from bus.security.keyring import Keyring, shared_secret_keyring
from bus.security.open_control import OPEN_CONTROL
from tests.security.yard import Yard, jws, parts_of
from tests.unit.fakes import FakeDelivery
from tests.unit.ledger import Add

SERVICES = ("ledger", "office", "auditor", "mail")
OPERATORS = {
    "ida": frozenset({"control.read"}),
    "boss": frozenset({"control.read", "control.order"}),
    "ops": frozenset({"dead-letters.reveal"}),
    "monkey": frozenset({"control.read", "control.chaos"}),
}


@dataclass
class Wire:
    """A transport that has only a control channel: it collects what is sent."""

    sent: list[tuple[str, Envelope]] = field(default_factory=list)
    receivers: list[Callable[[Delivery], None]] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)
    specs: list[ConsumerSpec] = field(default_factory=list)
    body_limits: list[int] = field(default_factory=list)
    deliveries: list[FakeDelivery] = field(default_factory=list)
    ready = True

    async def open_control(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_refused: Callable[[BusError], None],
    ) -> "Wire":
        self.receivers.append(on_delivery)
        self.specs.append(spec)
        self.keys.append([each.routing_key for each in spec.topology.bindings])
        return self

    async def wait_ready(self) -> None:
        return

    async def send(self, envelope: Envelope, address: Address) -> None:
        self.sent.append((address.routing_key, envelope))

    def limit_body(self, max_bytes: int) -> None:
        self.body_limits.append(max_bytes)

    async def close(self) -> None:
        return

    def deliver(self, envelope: Envelope, receiver: int = 0) -> None:
        self.deliveries.append(FakeDelivery(envelope))
        self.receivers[receiver](cast("Delivery", self.deliveries[-1]))


@dataclass(frozen=True)
class StateReport:
    """A report that knows only its state."""

    service: str
    instance: str

    def _known(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "instance": self.instance,
            "started": 1,
            "state": "ready",
        }

    def state(self) -> InstanceState:
        return InstanceState(**self._known())

    def info(self) -> InstanceInfo:
        return InstanceInfo(**self._known(), bus_version="1", python_version="3")

    def stats(self) -> InstanceStats:
        return InstanceStats(**self._known(), since=1)

    def breakers(self) -> InstanceBreakers:
        return InstanceBreakers(**self._known())

    def chaos(self) -> InstanceChaos:
        return InstanceChaos(**self._known())

    def find(self, text: str) -> RememberedMessages:
        assert text
        return RememberedMessages(**self._known(), since=1)


@dataclass
class ControlWorld:
    """`auditor` may read, `office` may call the ledger, `mail` may nothing; three operators."""

    yard: Yard
    rings: dict[str, Keyring]

    @classmethod
    async def started(cls) -> "ControlWorld":
        yard = Yard()
        for service in SERVICES:
            yard.key(service)
        for operator in OPERATORS:
            yard.key(operator, role="operator")
        yard.grants = Grants(
            {
                "ledger": ServiceGrants(),
                "office": ServiceGrants(call=frozenset({contract_of(Add).permission})),
                "auditor": ServiceGrants(control=frozenset({"read"})),
                "mail": ServiceGrants(),
            },
            OPERATORS,
        )
        return cls(yard, {name: await yard.started(name) for name in (*SERVICES, *OPERATORS)})

    def guard(self, name: str) -> ControlSecurity:
        role: Any = self.rings[name].role
        return ControlSecurity(
            Subject(name=name, role=role),
            self.rings[name],
            self.yard.current(),
            clock=self.yard.clock,
        )

    def shared_guard(self, name: str) -> ControlSecurity:
        """Return the guard of a process with `BUS_AUTH=dev`."""
        ring = shared_secret_keyring(
            name, "a secret of all services in development", clock=self.yard.clock
        )
        return ControlSecurity(Subject(name=name), ring, None, clock=self.yard.clock)

    def member(self, name: str, wire: Wire, instance: str = "1", mode: str = "on") -> Member:
        return Member(
            source=name,
            receiver=COMMANDS if name in OPERATORS else name,
            instance=instance,
            transport=cast("Transport", wire),
            guard=self._guard_of(name, mode),
            max_body_bytes=2**20,
            clock=self.yard.clock,
        )

    def _guard_of(self, name: str, mode: str) -> ControlGuard:
        if mode == "off":
            return OPEN_CONTROL
        return self.guard(name) if mode == "on" else self.shared_guard(name)

    async def process(
        self,
        name: str,
        instance: str = "1",
        mode: str = "on",
        execute: Execute | None = None,
    ) -> tuple[Discovery, Wire]:
        """Return a started process and its wire. It obeys orders by `execute`."""
        wire, report = Wire(), StateReport(name, instance)
        discovery = Discovery(self.member(name, wire, instance, mode), report, execute)
        await discovery.start()
        return discovery, wire

    def question(
        self,
        asker: str = "auditor",
        question: Question[Any] | None = None,
        *,
        target: str = "ask.all",
        window: float = 1,
        **attributes: Any,
    ) -> Envelope:
        """Return a signed question."""
        asked = question or Ping()
        receiver = COMMANDS if asker in OPERATORS else asker
        known = {
            "id": new_id(),
            "type": asked.name,
            "role": "control",
            "source": asker,
            "body": asked.model_dump_json().encode(),
            "expires": int((self.yard.clock() + window) * 1000),
            "reply_to": f"answer.{receiver}.1",
        }
        return self.guard(asker).sign_question(Envelope(**{**known, **attributes}), target)

    def forged(
        self, envelope: Envelope, *, by: str | None = None, typ: str = "ctl+jwt", **claims: Any
    ) -> Envelope:
        """Return the message with changed claims (None removes one), signed with a key of `by`."""
        owner = by or envelope.source
        header, old, _ = parts_of(envelope.proof or "")
        header = {**header, "kid": f"{owner}-1", "typ": typ}
        mixed = {name: value for name, value in {**old, **claims}.items() if value is not None}
        return envelope.replace(proof=jws(header, mixed, self.yard.private[owner][-1]))


async def settle(turns: int = 5) -> None:
    """Let the tasks of answers run."""
    for _ in range(turns):
        await asyncio.sleep(0)
