"""The attack table of orders: only a fresh order of an operator with the right is obeyed, once."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bus.messaging.control import GetStats, Ping
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.orders import (
    MAX_ORDER_SECONDS,
    IsolateBreaker,
    Order,
    OrderResult,
    StartChaos,
    StopChaos,
)
from bus.runtime.order_executor import OrderExecutor
from bus.security.grants import Grants
from tests.security.control_world import ControlWorld, StateReport, Wire, settle
from tests.security.yard import NOW
from tests.unit.fakes import virtual

HOUR_MS = 3_600_000


@dataclass
class Ledger:
    """The process `ledger`, which counts the orders that it obeys."""

    world: ControlWorld
    obeyed: list[tuple[str, str]] = field(default_factory=list)
    chaos: list[str] = field(default_factory=list)
    wire: Wire = field(default_factory=Wire)
    refusals: Any = None

    @classmethod
    async def started(cls, mode: str = "on", instance: str = "1") -> "Ledger":
        ledger = cls(await ControlWorld.started())
        await ledger.start(mode, instance)
        return ledger

    async def start(self, mode: str = "on", instance: str = "1") -> None:
        executor = OrderExecutor(
            StateReport("ledger", instance).state, clock=self.world.yard.clock, leeway=30
        )
        executor.add(IsolateBreaker, self._apply)
        executor.add(StartChaos, self._begin)
        executor.add(StopChaos, self._begin)
        discovery, self.wire = await self.world.process("ledger", instance, mode, executor.execute)
        self.refusals = discovery.responder.refusals.counts

    def _apply(self, order: IsolateBreaker, operator: str) -> int:
        self.obeyed.append((order.breaker, operator))
        return 1

    def _begin(self, _order: Order, operator: str) -> int:
        self.chaos.append(operator)
        return 1

    async def deliver(self, message: Envelope) -> None:
        self.wire.deliver(message)
        await settle()

    @property
    def answers(self) -> list[OrderResult]:
        return [OrderResult.model_validate_json(each.body) for _, each in self.wire.sent]


def isolation(until: float = NOW + 3600, **changes: Any) -> IsolateBreaker:
    return IsolateBreaker.model_construct(
        **{
            "breaker": "mail.send.v1",
            "kind": None,
            "reason": "the mail server loses letters",
            "until": int(until * 1000),
            "operator": None,
        }
        | changes
    )


def order(world: ControlWorld, by: str = "boss", **attributes: Any) -> Envelope:
    return world.question(by, isolation(), target="ask.service.ledger", **attributes)


def other_body(world: ControlWorld) -> Envelope:
    body = isolation(breaker="office.open.v1").model_dump_json().encode()
    return order(world).replace(body=body)


def of_a_revoked_key(world: ControlWorld) -> Envelope:
    asked = order(world)
    world.yard.public["boss-1"]["compromised_since"] = 1
    world.rings["ledger"]._replace_keys(world.yard.text())
    return asked


def after_its_window(world: ControlWorld) -> Envelope:
    asked = order(world, window=1)
    world.yard.clock.now += 1 + 30 + 0.1
    return asked


UNPROVEN: dict[str, Callable[[ControlWorld], Envelope]] = {
    "no proof": lambda world: order(world).replace(proof=None),
    "signed by another operator": lambda world: world.forged(order(world), by="ida"),
    "another name": lambda world: order(world, by="ida").replace(source="boss"),
    "another id": lambda world: order(world).replace(id=new_id()),
    "another order": lambda world: order(world).replace(type="bus.control.reset-breaker.v1"),
    "another body": other_body,
    "a question as an order": lambda world: world.question("boss").replace(
        type=IsolateBreaker.name
    ),
    "another service is ordered": lambda world: world.question(
        "boss", isolation(), target="ask.service.office"
    ),
    "another instance is ordered": lambda world: world.question(
        "boss", isolation(), target="ask.instance.ledger.2"
    ),
    "a key of a service as an operator's": lambda world: world.forged(
        order(world, by="auditor"), role="operator"
    ),
    "a key of a service in the name of an operator": lambda world: world.forged(
        order(world), by="auditor", iss="boss", role="operator"
    ),
    "a key that was revoked": of_a_revoked_key,
    "after its window": after_its_window,
    "a window of more than a minute": lambda world: order(world, window=61),
}


@pytest.mark.parametrize("attack", UNPROVEN.values(), ids=UNPROVEN)
async def test_a_forged_order_is_neither_obeyed_nor_answered(
    attack: Callable[[ControlWorld], Envelope],
) -> None:
    ledger = await Ledger.started()
    await ledger.deliver(attack(ledger.world))
    assert (ledger.obeyed, ledger.answers) == ([], [])
    assert ledger.refusals == {"not proven": 1}


@pytest.mark.parametrize("asker", ["auditor", "office", "mail", "ida", "ops", "monkey"])
async def test_an_order_of_a_service_or_of_an_operator_without_the_right_is_not_obeyed(
    asker: str,
) -> None:
    ledger = await Ledger.started()
    await ledger.deliver(order(ledger.world, by=asker))
    assert (ledger.obeyed, ledger.answers) == ([], [])
    assert ledger.refusals == {"not granted": 1}


async def test_an_order_of_an_operator_with_the_right_is_obeyed_and_answered() -> None:
    ledger = await Ledger.started()
    await ledger.deliver(order(ledger.world))
    assert ledger.obeyed == [("mail.send.v1", "boss")]
    (answer,) = ledger.answers
    assert (answer.service, answer.outcome, answer.why, answer.changed) == (
        "ledger",
        "applied",
        None,
        1,
    )


async def test_the_name_in_an_order_does_not_replace_the_name_of_the_key() -> None:
    ledger = await Ledger.started()
    asked = isolation(operator="another person")
    await ledger.deliver(ledger.world.question("boss", asked))
    assert ledger.obeyed == [("mail.send.v1", "boss")]


@pytest.mark.parametrize("mode", ["dev", "off"])
async def test_without_keys_of_operators_an_order_names_its_operator(mode: str) -> None:
    ledger = await Ledger.started(mode)
    guard = ledger.world._guard_of("office", mode)
    asked = ledger.world.question("office", isolation(operator="ida@laptop"))
    await ledger.deliver(guard.sign_question(asked.replace(proof=None), "ask.all"))
    assert ledger.obeyed == [("mail.send.v1", "ida@laptop")]


@pytest.mark.parametrize("asker", ["auditor", "office", "mail", "ida", "ops", "boss"])
@pytest.mark.parametrize(
    "asked",
    [
        StartChaos(plan="ledger.add: error=internal", reason="revenge", until=int(NOW * 1000) + 1),
        StopChaos(reason="revenge", until=int(NOW * 1000) + 1),
    ],
    ids=["start", "stop"],
)
async def test_chaos_needs_a_right_of_its_own(asker: str, asked: Order) -> None:
    ledger = await Ledger.started()
    await ledger.deliver(ledger.world.question(asker, asked))
    assert (ledger.chaos, ledger.answers) == ([], [])
    assert ledger.refusals == {"not granted": 1}


async def test_an_operator_with_the_right_starts_chaos() -> None:
    ledger = await Ledger.started()
    asked = StartChaos(plan="*: duplicate", reason="game day", until=int(NOW * 1000) + HOUR_MS)
    await ledger.deliver(ledger.world.question("monkey", asked))
    assert ledger.chaos == ["monkey"]


@pytest.mark.parametrize(
    ("operator", "is_answered"), [("orderer", True), ("monkey", True), ("ops", False)]
)
async def test_an_operator_who_may_order_may_ask_who_is_alive(
    operator: str, is_answered: bool
) -> None:
    ledger = await Ledger.started()
    rights = {"orderer": frozenset({"control.order"}), "monkey": frozenset({"control.chaos"})}
    asker = "boss" if operator == "orderer" else operator
    ledger.world.yard.grants = Grants(
        ledger.world.yard.grants.services,
        {asker: rights.get(operator, frozenset({"dead-letters.reveal"}))},
    )
    await ledger.start(instance="2")
    await ledger.deliver(ledger.world.question(asker, Ping()))
    assert bool(ledger.wire.sent) is is_answered
    await ledger.deliver(ledger.world.question(asker, GetStats()))
    assert len(ledger.wire.sent) == is_answered


@pytest.mark.parametrize("until", [HOUR_MS + 30_001, 24 * HOUR_MS])
async def test_chaos_of_more_than_an_hour_is_ignored(until: int) -> None:
    ledger = await Ledger.started()
    asked = StartChaos(plan="*: duplicate", reason="game day", until=int(NOW * 1000) + until)
    await ledger.deliver(ledger.world.question("monkey", asked))
    assert ledger.chaos == []
    assert [(each.outcome, each.why) for each in ledger.answers] == [("ignored", "too-long")]


@virtual
async def test_a_replayed_order_is_obeyed_once() -> None:
    ledger = await Ledger.started()
    asked = order(ledger.world, window=60)
    for later in (0, 1, 59, 89):
        ledger.world.yard.clock.now = NOW + later
        await ledger.deliver(asked)
    assert len(ledger.obeyed) == len(ledger.answers) == 1
    assert ledger.refusals == {"replayed": 3}


@virtual
async def test_an_order_cannot_be_replayed_to_a_process_that_started_after_it() -> None:
    ledger = await Ledger.started()
    asked = order(ledger.world, window=60)
    await ledger.deliver(asked)
    ledger.world.yard.clock.now = NOW + 1
    await ledger.start(instance="2")
    await ledger.deliver(asked)
    assert len(ledger.obeyed) == 1
    assert ledger.refusals == {"replayed": 1}


@virtual
async def test_a_process_that_started_with_a_fast_clock_obeys_orders_two_minutes_later() -> None:
    ledger = await Ledger.started()
    clock = ledger.world.yard.clock
    clock.now = NOW + 3600
    await ledger.start()
    clock.now = NOW  # the clock was set back
    await ledger.deliver(order(ledger.world, window=60))
    assert (ledger.obeyed, ledger.refusals) == ([], {"replayed": 1})
    await asyncio.sleep(119)
    clock.now = NOW + 119
    await ledger.deliver(order(ledger.world, window=60))
    assert (ledger.obeyed, ledger.refusals) == ([], {"replayed": 2})
    await asyncio.sleep(2)
    clock.now = NOW + 121
    await ledger.deliver(order(ledger.world, window=60))
    assert len(ledger.obeyed) == 1


async def test_an_isolation_cannot_be_replayed_after_a_later_order() -> None:
    ledger = await Ledger.started()
    first = order(ledger.world, window=60)
    await ledger.deliver(first)
    await ledger.deliver(ledger.world.question("boss", isolation(breaker="other.one.v1")))
    await ledger.deliver(first)
    assert [name for name, _ in ledger.obeyed] == ["mail.send.v1", "other.one.v1"]


@pytest.mark.parametrize(
    ("until", "why"),
    [
        (NOW, "ended"),
        (NOW - 3600, "ended"),
        (0, "ended"),
        (NOW + MAX_ORDER_SECONDS + 31, "too-long"),
        (NOW + 366 * 86400, "too-long"),
    ],
)
async def test_an_order_with_an_end_that_is_over_or_too_late_is_answered_and_ignored(
    until: float, why: str
) -> None:
    ledger = await Ledger.started()
    await ledger.deliver(ledger.world.question("boss", isolation(until)))
    assert ledger.obeyed == []
    (answer,) = ledger.answers
    assert (answer.outcome, answer.why) == ("ignored", why)


@pytest.mark.parametrize(
    "changes",
    [
        {"until": 10**30},
        {"until": -1},
        {"until": "soon"},
        {"until": None},
        {"reason": ""},
        {"reason": "   "},
        {"reason": "x" * 201},
        {"reason": "line\nend"},
        {"reason": "\x1b[31mred"},
        {"reason": None},
        {"breaker": "x" * 256},
        {"kind": "other"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_an_order_with_an_invalid_value_is_not_obeyed(changes: dict[str, Any]) -> None:
    ledger = await Ledger.started()
    await ledger.deliver(ledger.world.question("boss", isolation().model_copy(update=changes)))
    assert (ledger.obeyed, ledger.answers) == ([], [])
    assert ledger.refusals == {"malformed": 1}


async def test_an_instance_logs_the_order_that_it_obeys(caplog: pytest.LogCaptureFixture) -> None:
    ledger = await Ledger.started()
    with caplog.at_level(logging.WARNING, "bus.orders"):
        await ledger.deliver(order(ledger.world))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for part in ("ledger", "mail.send.v1", "boss", "the mail server loses letters", "until 20"):
        assert part in record.getMessage()
