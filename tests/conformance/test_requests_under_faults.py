"""Tests of requests whose time is up, or whose connection is lost."""

import asyncio

import pytest

from bus.contracts.contract import contract_of
from bus.errors import (
    ConnectionLost,
    DeadlineExceeded,
)
from bus.messaging.topology.addresses import address_of, reply_address
from bus.messaging.topology.names import request_queue
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.transports.wire_format import AmqpMessage
from tests.conformance.contracts import Ask, Look, Price, Word
from tests.conformance.test_requests import echo
from tests.conformance.world import World, stays, until
from tests.polling import BRIEF


async def test_a_request_that_must_not_run_twice_runs_once_if_the_connection_drops_after_it(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    effects, going_on = [], asyncio.Event()
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        effects.append(request.text)
        await going_on.wait()
        return Word(text="done")

    await world.serve(desk, router)
    asking = asyncio.create_task(client.request(Ask(text="once"), timeout=30))
    await until(lambda: effects, "the effect")
    await world.drop_connections(desk)
    await until(lambda: not desk.ready, "the loss to be noticed", poll=BRIEF)
    await until(lambda: desk.ready, "the server")
    going_on.set()
    assert await asking == Word(text="done")
    await client.request(Ask(text="another"), timeout=30)
    assert effects == ["once", "another"]


async def test_a_request_that_must_not_run_twice_is_not_run_by_another_server_after_a_drop(
    world: World,
) -> None:
    first, second, client = (
        await world.bus("desk"),
        await world.bus("desk"),
        await world.bus("client"),
    )
    effects: list[Bus] = []
    going_on = asyncio.Event()
    for desk in (first, second):
        router = Router("desk")

        @router.request(Ask)
        async def ask(request: Ask, desk: Bus = desk) -> Word:
            effects.append(desk)
            await going_on.wait()
            return Word(text="done")

        await world.serve(desk, router)
    asking = asyncio.create_task(client.request(Ask(), timeout=30))
    await until(lambda: effects, "the effect")
    await world.drop_connections(effects[0])
    await until(lambda: not effects[0].ready, "the loss to be noticed")
    await until(lambda: effects[0].ready, "the server")
    await stays(lambda: len(effects) == 1, "run once")
    going_on.set()
    assert await asking == Word(text="done")
    assert len(effects) == 1


async def test_an_idempotent_request_is_answered_although_its_server_lost_its_connection(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    calls, going_on = [], asyncio.Event()
    router = Router("desk")

    @router.request(Look)
    async def look(request: Look) -> Word:
        calls.append(request.text)
        await going_on.wait()
        return Word(text="seen")

    await world.serve(desk, router)
    asking = asyncio.create_task(client.request(Look(), timeout=30))
    await until(lambda: calls, "the call")
    await world.drop_connections(desk)
    await until(lambda: not desk.ready, "the loss to be noticed", poll=BRIEF)
    await until(lambda: desk.ready, "the server")
    going_on.set()
    assert await asking == Word(text="seen")


async def test_pending_requests_fail_at_once_when_the_callers_connection_goes(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    started, going_on, router = [], asyncio.Event(), Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        started.append(request.text)
        await going_on.wait()
        return Word(text="late")

    await world.serve(desk, router)
    pending = [asyncio.create_task(client.request(Ask(text=str(n)), timeout=30)) for n in range(5)]
    await until(lambda: len(started) == 5, "the requests to be handled")
    await world.drop_connections(client)
    for error in await asyncio.gather(*pending, return_exceptions=True):
        assert isinstance(error, ConnectionLost)  # and not DeadlineExceeded
        assert error.maybe_executed
    going_on.set()


async def test_an_idempotent_request_is_asked_again_by_itself_when_the_callers_connection_goes(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    calls, router = [], Router("desk")

    @router.request(Look)
    async def look(request: Look) -> Word:
        calls.append(request.text)
        await asyncio.sleep(0.5)
        return Word(text="seen")

    await world.serve(desk, router)
    asking = asyncio.create_task(client.request(Look(), timeout=30))
    await until(lambda: calls, "the call")
    await world.drop_connections(client)
    assert await asking == Word(text="seen")


async def test_a_handler_is_cancelled_at_its_callers_deadline(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    ends: list[str] = []
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return Word(text="late")

    await world.serve(desk, router)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DeadlineExceeded):
        await client.request(Ask(), timeout=2)
    assert 1.9 < loop.time() - began < 15
    await until(lambda: ends, "the handler to be cancelled")


async def test_a_request_made_while_handling_one_inherits_its_deadline(world: World) -> None:
    desk, shop, client = await world.bus("desk"), await world.bus("shop"), await world.bus("client")
    seen: list[float] = []
    outer, inner = Router("desk"), Router("shop")

    @inner.request(Price)
    async def price(request: Price) -> Word:
        await asyncio.sleep(30)
        return Word(text="late")

    @outer.request(Ask)
    async def ask(request: Ask) -> Word:
        began = asyncio.get_running_loop().time()
        try:
            return await desk.request(Price(), timeout=20)
        finally:
            seen.append(asyncio.get_running_loop().time() - began)

    await world.serve(shop, inner)
    await world.serve(desk, outer)
    with pytest.raises(DeadlineExceeded):
        await client.request(Ask(), timeout=2)
    await until(lambda: seen, "the inner request to end")
    assert seen[0] < 15


async def test_late_replies_are_counted_and_dropped(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    await world.serve(desk, echo())
    reply_to = client._client._reply_to
    for number in range(3):
        wire = AmqpMessage(
            body=b'{"text": ""}',
            message_id=f"r{number}",
            type="desk.ask.v1.reply",
            app_id="desk",
            correlation_id="nobody's",
        )
        await world.put(wire, reply_address(reply_to))
    await until(lambda: client._client.replies.late == 3, "the late replies to be counted")
    assert await client.request(Ask(text="1"), timeout=30) == Word(text="so 1")


async def test_a_reply_to_a_caller_that_is_gone_harms_nobody(world: World) -> None:
    desk, client, other = (
        await world.bus("desk"),
        await world.bus("client"),
        await world.bus("other"),
    )
    started, router = [], Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        started.append(request.text)
        await asyncio.sleep(0.3)
        return Word(text=request.text)

    await world.serve(desk, router)
    asking = asyncio.create_task(client.request(Ask(text="gone"), timeout=30))
    await until(lambda: started, "the request to be handled")
    await client._transport.close()
    asking.cancel()
    await until(lambda: desk._client.replies.undeliverable == 1, "the reply to come back")
    assert await other.request(Ask(text="here"), timeout=30) == Word(text="here")


async def test_a_malformed_request_is_refused_and_the_server_lives(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    await world.serve(desk, echo())
    address = address_of("request", "desk.ask.v1")
    for wire in (
        AmqpMessage(body=b"\xff", content_type=None),
        AmqpMessage(body=b"[", message_id="1", type="desk.ask.v1", app_id="x"),
    ):
        await world.put(wire, address)
    await world.holds(request_queue(contract_of(Ask)), 0)
    assert await client.request(Ask(text="1"), timeout=30) == Word(text="so 1")
