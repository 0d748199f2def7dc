"""The attack table: the service rejects each attack and never calls its handler.

The log contains no part of a payload, a token or a proof.
"""

import logging
import re
import socket

import pytest

from bus.contracts.contract import contract_of
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import Address, reply_address
from bus.messaging.topology.names import reply_queue
from bus.operations.topology.permissions import broker_users
from bus.security.grants import Grants
from tests.security.attacks.forging import Attack
from tests.security.attacks.more_time import MORE_TIME
from tests.security.attacks.proofs import PROOFS
from tests.security.attacks.return_addresses import DIRECT, RETURN_ADDRESSES
from tests.security.attacks.tokens import TOKENS
from tests.security.world import SECRET, Ledger, World, codes
from tests.unit.fakes import FakeDelivery, settle_down, virtual
from tests.unit.ledger import Add, BooksClosed, CloseBooks

REFUSALS = {
    "unauthenticated",
    "permission_denied",
    "invalid_argument",
    "deadline_exceeded",
    "unimplemented",
}
ATTACKS: dict[str, Attack] = {**TOKENS, **PROOFS, **MORE_TIME, **RETURN_ADDRESSES}
CONTRACTS = [contract_of(each) for each in (Add, CloseBooks, BooksClosed)]
PARKED_IN = "ledger.retry.30s"


async def come_back(world: World, ledger: Ledger) -> None:
    """Deliver the message that waits for its key once again."""
    copy = ledger.sent.pop().envelope
    world.yard.clock.now += 30
    ledger.receiver.on_delivery(
        FakeDelivery(copy.replace(queue=ledger.receiver.state.spec.queue.name))
    )
    await settle_down()


def broker_lets(address: Address, grants: Grants) -> bool:
    """Return True if the ledger's broker user may publish to this address.

    The broker closes the channel after a forbidden publish.
    """
    (user,) = (
        each for each in broker_users(grants, CONTRACTS, ["ledger"]) if each.name == "ledger"
    )
    exchange, key = address.exchange, address.routing_key
    return fits(user.write, exchange) and (
        exchange not in user.keys or fits(user.keys[exchange].write, key)
    )


def could_be_told(envelope: Envelope, grants: Grants) -> bool:
    """Return True if the sender can receive an error, or the message becomes a dead letter.

    A request gets an error at its `reply_to` if this is a reply queue of the named sender, and the
    broker allows the publish. Events and jobs become dead letters.
    """
    if envelope.role != "request":
        return True
    reply_to = envelope.reply_to or ""
    its_own = reply_to.startswith(reply_queue(envelope.source, ""))
    return its_own and broker_lets(reply_address(reply_to), grants)


def fits(pattern: str, name: str) -> bool:
    """Return True if RabbitMQ's permission pattern matches; an empty pattern matches no name."""
    return bool(pattern) and re.search(pattern.replace("$", r"\Z"), name, re.ASCII) is not None


async def refused(attack: Attack, log: pytest.LogCaptureFixture) -> None:
    world = await World.started()
    envelope = attack(world)
    world.rings["ledger"] = await world.yard.started("ledger")
    ledger, delivery = Ledger(world, envelope.role), FakeDelivery(envelope)
    with log.at_level(logging.DEBUG):
        ledger.receiver.on_delivery(delivery)
        await settle_down()
        assert delivery.acks == 1
        if [each.address.exchange for each in ledger.sent] == [PARKED_IN]:
            await come_back(world, ledger)
    assert ledger.handled == []
    assert all(broker_lets(each.address, world.yard.grants) for each in ledger.sent), (
        "it would have lost the channel"
    )
    assert ledger.sent or not could_be_told(envelope, world.yard.grants), "nobody was told"
    assert set(codes(ledger.sent)) <= REFUSALS
    assert any(
        word in record.message
        for record in log.records
        for word in (" rejected: ", " dead-lettered from ")
    )
    shown = log.text + "".join(str(record.__dict__) for record in log.records)
    assert SECRET not in shown
    for each in (envelope.proof, envelope.authorization, envelope.expiry_override):
        assert (
            each is None
            or len(each) < 20
            or all(
                part not in shown
                for part in str(each).removeprefix("Bearer ").split(".")
                if len(part) > 8
            )
        )


@pytest.mark.parametrize("attack", ATTACKS, ids=list(ATTACKS))
def test_an_attack_is_refused(
    attack: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    ledger.receiver.on_delivery(delivery)
    await settle_down()
    assert len(ledger.handled) == 1
    assert delivery.acks == 1
    assert all(each.envelope.error is None for each in ledger.sent)


@virtual
async def test_a_request_that_the_broker_has_addressed_is_answered_where_that_is_allowed() -> None:
    """Use RabbitMQ's direct reply-to, which a service may answer if it declares its topology.

    The attack table has the case in which each service has its own broker user.
    """
    world = await World.started()
    ledger = Ledger(world, "request", direct=True)
    ledger.receiver.on_delivery(FakeDelivery(world.request(reply_to=DIRECT)))
    ledger.receiver.on_delivery(
        FakeDelivery(world.request(id="m-2", reply_to=DIRECT).replace(authorization=None))
    )
    await settle_down()
    assert len(ledger.handled) == 1
    assert {(each.address.exchange, each.address.routing_key) for each in ledger.sent} == {
        ("", DIRECT)
    }
    assert sorted(codes(ledger.sent)) == ["None", "unauthenticated"]
