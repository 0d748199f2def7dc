"""Forgeries with the id of a genuine message.

A forgery must not receive a cached reply, join work in flight, or settle the genuine message.
"""

import asyncio
from typing import Any

import pytest

from bus.contracts.contract import contract_of
from bus.errors import Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import PublishOutcome, Returned
from bus.messaging.topology.names import reply_queue
from bus.runtime.router import Router
from bus.runtime.settler import SETTLE_TIMEOUT_SECONDS
from bus.storage.memory.inbox import MemoryInbox
from tests.security.world import DAY, Ledger, World, codes
from tests.security.yard import NOW
from tests.unit.fakes import FakeDelivery, FakeTransport, receiver_of, settle_down, virtual
from tests.unit.ledger import CloseBooks, GetTotal, Total


@virtual
async def test_a_forgery_of_a_job_under_way_does_not_join_it() -> None:
    world = await World.started()
    go, began = asyncio.Event(), []
    router = Router("ledger")

    @router.job(CloseBooks, concurrency=2)
    async def close(job: CloseBooks) -> Total:
        began.append(job)
        await go.wait()
        return Total(total=1)

    transport = FakeTransport()
    receiver = receiver_of(
        router,
        transport,
        gate=world.yard.gate("ledger", world.rings["ledger"], CloseBooks),
        signer=world.signer("ledger"),
        clock=world.yard.clock,
    )
    job = world.job()
    first, forged, again = (
        FakeDelivery(job),
        FakeDelivery(job.replace(body=b"{}")),
        FakeDelivery(job, redelivered=True),
    )
    for each in (first, forged, again):
        receiver.on_delivery(each)
    await settle_down()
    assert (forged.acks, first.acks, again.acks) == (1, 0, 0)
    assert codes(transport.sent)[0] == "unauthenticated"
    go.set()
    await settle_down()
    assert (len(began), first.acks, again.acks) == (1, 1, 1)


@virtual
async def test_a_forgery_that_comes_first_does_not_take_the_real_one_with_it() -> None:
    world = await World.started()
    handled: list[Any] = []
    router = Router("ledger")

    @router.job(CloseBooks)
    async def close(job: CloseBooks) -> Total:
        handled.append(job)
        return Total(total=1)

    gate = world.yard.gate("ledger", world.rings["ledger"], CloseBooks)
    receiver = receiver_of(
        router, FakeTransport(), gate=gate, signer=world.signer("ledger"), clock=world.yard.clock
    )
    job = world.job()
    forged, real = FakeDelivery(job.replace(proof=None)), FakeDelivery(job)
    receiver.on_delivery(forged)
    receiver.on_delivery(real)
    await settle_down()
    assert len(handled) == 1
    assert (forged.acks, real.acks) == (1, 1)


CHANGED: dict[str, dict[str, Any]] = {
    "its correlation id": {"correlation_id": "c-2"},
    "its deadline": {"expires": int((NOW + 2 * DAY) * 1000)},
    "its deadline, which is over": {"expires": int((NOW - DAY) * 1000)},
    "an operator's word": {"expiry_override": "e30.e30.AA"},
    "what is malformed": {"fault": "content_type is not application/json"},
}


@pytest.mark.parametrize("what", CHANGED)
@virtual
async def test_a_copy_that_was_changed_and_comes_first_does_not_take_the_real_one_with_it(
    what: str,
) -> None:
    """Deliver a changed copy first: the genuine message is not acked with the copy."""
    world = await World.started()
    ledger, job = Ledger(world, "job"), world.job()
    changed, real = FakeDelivery(job.replace(**CHANGED[what])), FakeDelivery(job)
    ledger.receiver.on_delivery(changed)
    ledger.receiver.on_delivery(real)
    await settle_down()
    assert len(ledger.handled) == 1
    assert (changed.acks, real.acks) == (1, 1)


@virtual
async def test_an_outcome_that_could_not_be_told_is_for_who_asked_alone() -> None:
    """Send a job with the same id from another service, while an outcome waits to be sent.

    The outcome waits until the first job is delivered again. Both services may submit the job.
    """
    world = await World.started()
    for service in ("office", "mail"):
        world.yard.grant(service, call=(contract_of(CloseBooks),))
    down = [True]

    def answer(sent: Envelope) -> PublishOutcome | None:
        if down and sent.in_reply_to:
            raise Unavailable("no connection")
        return None

    ledger = Ledger(world, "job", answer=answer)
    job = FakeDelivery(world.job())
    ledger.receiver.on_delivery(job)
    await asyncio.sleep(SETTLE_TIMEOUT_SECONDS + 30)
    assert (job.requeues, len(ledger.handled)) == (1, 1)
    down.clear()
    ledger.receiver.on_delivery(FakeDelivery(world.job("mail", body=b"{}")))
    await settle_down()
    assert len(ledger.handled) == 2, "it was told what another's job came to"
    ledger.receiver.on_delivery(FakeDelivery(job.envelope, redelivered=True))
    await asyncio.sleep(5)
    assert len(ledger.handled) == 2
    assert [each.address.routing_key for each in ledger.sent[-2:]] == [
        "mail.replies.1",
        "office.replies.1",
    ]


@virtual
async def test_an_answer_that_is_remembered_is_for_who_asked_alone() -> None:
    """Send a captured idempotent request again, with another `reply_to`, sender or token.

    Only a genuine duplicate gets the cached reply. An error is sent only to a reply queue of the
    named sender.
    """
    world = await World.started()
    world.yard.grant("office", call=(contract_of(GetTotal),))
    router, transport = Router("ledger"), FakeTransport()

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=4711)

    gate = world.yard.gate("ledger", world.rings["ledger"], GetTotal)
    receiver = receiver_of(
        router,
        transport,
        inbox=MemoryInbox(),
        gate=gate,
        signer=world.signer("ledger"),
        clock=world.yard.clock,
    )
    request = world.request("ledger.total.v1", body=b"{}", queue="ledger.requests.total.v1")
    receiver.on_delivery(FakeDelivery(request))
    await settle_down()
    receiver.on_delivery(FakeDelivery(request.replace(reply_to=reply_queue("mail", "1"))))
    receiver.on_delivery(
        FakeDelivery(request.replace(source="mail", reply_to=reply_queue("mail", "1")))
    )
    receiver.on_delivery(FakeDelivery(request.replace(authorization=None)))
    await settle_down()
    assert codes(transport.sent) == ["None", "unauthenticated"]
    assert [b"4711" in each.envelope.body for each in transport.sent] == [True, False]
    assert {each.address.routing_key for each in transport.sent} == {reply_queue("office", "1")}


@virtual
async def test_who_is_not_let_in_is_told_once_however_long_he_is_away() -> None:
    """Submit a forged job with a reply queue that does not exist.

    A result is offered to an absent submitter for 30 s, but an attacker must not cause these
    publishes.
    """
    world = await World.started()
    ledger = Ledger(
        world, "job", answer=lambda sent: Returned(reason="NO_ROUTE") if sent.in_reply_to else None
    )
    ledger.receiver.on_delivery(
        FakeDelivery(world.job(reply_to="office.replies.gone").replace(proof=None))
    )
    await asyncio.sleep(60)
    assert codes(ledger.sent) == ["unauthenticated", "unauthenticated"], (
        "a dead letter, and one failure"
    )


@virtual
async def test_who_is_not_let_in_gets_no_token_that_he_could_use() -> None:
    world = await World.started()
    router, transport = Router("ledger"), FakeTransport()

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=1)

    gate = world.yard.gate("ledger", world.rings["ledger"], GetTotal)
    receiver = receiver_of(
        router, transport, gate=gate, signer=world.signer("ledger"), clock=world.yard.clock
    )
    request = world.request("ledger.total.v1", queue="ledger.requests.total.v1")
    receiver.on_delivery(FakeDelivery(request.replace(authorization=None)))
    receiver.on_delivery(FakeDelivery(request.replace(id="m-2", fault="no type")))
    receiver.on_delivery(FakeDelivery(request.replace(id="m-3")))
    await settle_down()
    assert sorted(codes(transport.sent)) == [
        "invalid_argument",
        "permission_denied",
        "unauthenticated",
    ]
    assert all(
        each.envelope.authorization is None and each.envelope.proof for each in transport.sent
    )


@virtual
async def test_a_parked_message_is_handled_after_an_uncertain_ack() -> None:
    """Deliver a parked copy: its id and attempt are those of a delivery that may be settled."""
    world = await World.started()
    world.yard.key("office", "office-2")
    world.rings["office"] = await world.yard.started("office")
    world.yard.clock.now += 60
    handled: list[Any] = []
    router, transport = Router("ledger"), FakeTransport()

    @router.job(CloseBooks)
    async def close(job: CloseBooks) -> Total:
        handled.append(job)
        return Total(total=1)

    gate = world.yard.gate("ledger", world.rings["ledger"], CloseBooks)
    receiver = receiver_of(
        router, transport, gate=gate, signer=world.signer("ledger"), clock=world.yard.clock
    )
    first = FakeDelivery(world.forged(world.job(), header={"kid": "office-2"}), alive=False)
    receiver.on_delivery(first)
    await settle_down()
    (parked,) = transport.sent
    assert (parked.address.exchange, handled) == ("ledger.retry.30s", [])
    world.yard.clock.now += 30
    back = FakeDelivery(parked.envelope)
    receiver.on_delivery(back)
    await settle_down()
    assert (len(handled), back.acks) == (1, 1)
