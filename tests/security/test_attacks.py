"""The attack table: each is refused, its handler is never called, and the log shows nothing of what was sent."""

import logging
import socket

import pytest

from tests.security.attacks.forging import Attack
from tests.security.attacks.more_time import MORE_TIME
from tests.security.attacks.proofs import PROOFS
from tests.security.attacks.tokens import TOKENS
from tests.security.world import SECRET, Ledger, World, codes
from tests.unit.fakes import FakeDelivery, settle_down, virtual

REFUSALS = {"unauthenticated", "permission_denied", "invalid_argument", "deadline_exceeded", "unimplemented"}
ATTACKS: dict[str, Attack] = {**TOKENS, **PROOFS, **MORE_TIME}
PARKED_IN = "ledger.retry.30s"


async def come_back(world: World, ledger: Ledger) -> None:
    """What waited for its key to become known is delivered again; once, and no more."""
    copy = ledger.sent.pop().envelope
    world.yard.clock.now += 30
    ledger.receiver.take(FakeDelivery(copy.evolve(queue=ledger.receiver.queue.name)))
    await settle_down()


async def refused(attack: Attack, log: pytest.LogCaptureFixture) -> None:
    world = await World.started()
    envelope = attack(world)
    world.rings["ledger"] = await world.yard.started("ledger")
    ledger, delivery = Ledger(world, envelope.traffic), FakeDelivery(envelope)
    with log.at_level(logging.DEBUG):
        ledger.receiver.take(delivery)
        await settle_down()
        assert delivery.acks == 1
        if [each.address.exchange for each in ledger.sent] == [PARKED_IN]:
            await come_back(world, ledger)
    assert ledger.handled == []
    assert ledger.sent, "nobody was told"
    assert set(codes(ledger.sent)) <= REFUSALS
    shown = log.text + "".join(str(record.__dict__) for record in log.records)
    assert SECRET not in shown
    for each in (envelope.proof, envelope.authorization, envelope.counter_proof):
        assert (
            each is None
            or len(each) < 20
            or all(part not in shown for part in str(each).removeprefix("Bearer ").split(".") if len(part) > 8)
        )


@pytest.mark.parametrize("attack", ATTACKS, ids=list(ATTACKS))
def test_an_attack_is_refused(attack: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> None:
        raise AssertionError("it looked somewhere for a key")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(socket.socket, "connect", nowhere)
    virtual(refused)(ATTACKS[attack], caplog)


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 60


@pytest.mark.parametrize("kind", ["request", "job", "event"])
@virtual
async def test_what_is_in_order_is_handled(kind: str) -> None:
    world = await World.started()
    ledger, delivery = Ledger(world, kind), FakeDelivery(getattr(world, kind)())
    ledger.receiver.take(delivery)
    await settle_down()
    assert len(ledger.handled) == 1
    assert delivery.acks == 1
    assert all(each.envelope.error is None for each in ledger.sent)
