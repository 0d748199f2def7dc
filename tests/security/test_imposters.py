"""What has a message's id and is another message: it must not be answered from memory, join work, or take a place."""

import asyncio
from typing import Any

from bus.contract import contract_of
from bus.inbox import MemoryInbox
from bus.router import Router
from bus.topology import reply_queue
from tests.security.world import World, codes
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
    receiver = receiver_of(router, transport, gate=world.yard.gate("ledger", world.rings["ledger"], CloseBooks), clock=world.yard.clock)
    job = world.job()
    first, forged, again = FakeDelivery(job), FakeDelivery(job.evolve(body=b"{}")), FakeDelivery(job, redelivered=True)
    for each in (first, forged, again):
        receiver.take(each)
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
    receiver = receiver_of(router, FakeTransport(), gate=gate, clock=world.yard.clock)
    job = world.job()
    forged, real = FakeDelivery(job.evolve(proof=None)), FakeDelivery(job)
    receiver.take(forged)
    receiver.take(real)
    await settle_down()
    assert len(handled) == 1
    assert (forged.acks, real.acks) == (1, 1)


@virtual
async def test_an_answer_that_is_remembered_is_for_who_asked_alone() -> None:
    """An idempotent request's duplicate gets the same answer; a captured one, sent again with another reply_to, gets none.

    Only who asks to be told where he could be hears that he is refused.
    """
    world = await World.started()
    world.yard.grant("office", call=(contract_of(GetTotal),))
    router, transport = Router("ledger"), FakeTransport()

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=4711)

    gate = world.yard.gate("ledger", world.rings["ledger"], GetTotal)
    receiver = receiver_of(router, transport, inbox=MemoryInbox(), gate=gate, clock=world.yard.clock)
    request = world.request("ledger.total.v1", body=b"{}", queue="ledger.requests.total.v1")
    receiver.take(FakeDelivery(request))
    await settle_down()
    receiver.take(FakeDelivery(request.evolve(reply_to=reply_queue("mail", "1"))))
    receiver.take(FakeDelivery(request.evolve(source="mail", reply_to=reply_queue("mail", "1"))))
    receiver.take(FakeDelivery(request.evolve(authorization=None)))
    await settle_down()
    assert codes(transport.sent) == ["None", "unauthenticated"]
    assert [b"4711" in each.envelope.body for each in transport.sent] == [True, False]
    assert {each.address.routing_key for each in transport.sent} == {reply_queue("office", "1")}


@virtual
async def test_who_is_not_let_in_gets_no_token_that_he_could_use() -> None:
    world = await World.started()
    router, transport = Router("ledger"), FakeTransport()

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=1)

    gate = world.yard.gate("ledger", world.rings["ledger"], GetTotal)
    receiver = receiver_of(router, transport, gate=gate, clock=world.yard.clock)
    request = world.request("ledger.total.v1", queue="ledger.requests.total.v1")
    receiver.take(FakeDelivery(request.evolve(authorization=None)))
    receiver.take(FakeDelivery(request.evolve(id="m-2", fault="no type")))
    receiver.take(FakeDelivery(request.evolve(id="m-3")))
    await settle_down()
    assert sorted(codes(transport.sent)) == ["invalid_argument", "permission_denied", "unauthenticated"]
    assert all(each.envelope.authorization is None and each.envelope.proof for each in transport.sent)


@virtual
async def test_what_waited_for_its_key_is_handled_although_the_ack_of_the_one_that_was_parked_was_in_doubt() -> None:
    """Its parked copy has the same id and attempt, and was taken for the redelivery of what is settled."""
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
    receiver = receiver_of(router, transport, gate=gate, clock=world.yard.clock)
    first = FakeDelivery(world.forged(world.job(), header={"kid": "office-2"}), alive=False)
    receiver.take(first)
    await settle_down()
    (parked,) = transport.sent
    assert (parked.address.exchange, handled) == ("ledger.retry.30s", [])
    world.yard.clock.now += 30
    back = FakeDelivery(parked.envelope)
    receiver.take(back)
    await settle_down()
    assert (len(handled), back.acks) == (1, 1)
