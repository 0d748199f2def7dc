"""Tests of the setting `max_message` on every transport."""

import asyncio
import logging

import pytest

from bus.contracts.contract import contract_of
from bus.errors import BusError, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from bus.messaging.topology.names import dead_letter_queue, event_queue, job_queue
from bus.operations.dead_letters import EVERYTHING, browse
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from tests.conformance.contracts import Ask, Look, Told, Word, Write
from tests.conformance.memory_world import MemoryWorld
from tests.conformance.world import World

SMALL, LARGE = "4KiB", 64 * 1024
"""The limit of one side, and the characters of a text that exceeds it."""
LONG = "x" * LARGE
WORK = job_queue(contract_of(Write))
KEY = "a secret of at least thirty-two bytes"
MODES = pytest.mark.parametrize("auth", ["off", "dev"])


async def started(world: World, service: str, auth: str, **settings: str) -> Bus:
    return await world.bus(service, auth=auth, key=KEY if auth == "dev" else None, **settings)


class Desk:
    """The router of `desk`. It answers with as many characters as the message asks for."""

    def __init__(self) -> None:
        self.router = Router("desk")
        self.handled: list[str] = []
        self.router.request(Ask)(self.ask)
        self.router.request(Look)(self.look)
        self.router.job(Write)(self.write)
        self.router.event(Told)(self.told)

    async def ask(self, request: Ask) -> Word:
        self.handled.append("ask")
        if request.text == "fail":
            raise NotFound(LONG)
        return Word(text=LONG if request.text == "long" else request.text[:10])

    async def look(self, request: Look) -> Word:
        self.handled.append("look")
        return Word(text=LONG if request.text == "long" else request.text[:10])

    async def write(self, job: Write) -> Word:
        self.handled.append("write")
        if job.text == "fail":
            raise NotFound(LONG)
        return Word(text=LONG if job.text == "long" else job.text[:10])

    async def told(self, event: Told) -> None:
        self.handled.append("told")


async def serving(world: World, auth: str = "off", **settings: str) -> tuple[Bus, Desk]:
    desk, bus = Desk(), await started(world, "desk", auth, **settings)
    await world.serve(bus, desk.router)
    return bus, desk


async def test_a_message_beyond_the_senders_limit_is_refused_before_it_is_sent(
    world: World,
) -> None:
    _, desk = await serving(world)
    shop = await world.bus("shop", auth="off", max_message=SMALL)
    owner = await world.bus("desk", auth="off", max_message=SMALL)
    for name, sending in (
        ("desk.ask.v1", shop.request(Ask(text=LONG))),
        ("desk.write.v1", shop.submit(Write(text=LONG))),
        ("desk.told.v1", owner.publish(Told(text=LONG))),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await sending
        assert str(caught.value).startswith(name)
        assert ": the message has 655" in str(caught.value)
        assert "the limit is 4096 bytes (BUS_MAX_MESSAGE)" in str(caught.value)
    assert await shop.request(Ask(text="short")) == Word(text="short")
    assert desk.handled == ["ask"]


@MODES
async def test_a_request_beyond_the_receivers_limit_is_answered_with_an_error(
    world: World, auth: str
) -> None:
    _, desk = await serving(world, auth, max_message=SMALL)
    shop = await started(world, "shop", auth)
    with pytest.raises(InvalidArgument, match=r"receiver reads at most 4096 bytes"):
        await shop.request(Ask(text=LONG))
    assert await shop.request(Ask(text="short")) == Word(text="short")
    assert desk.handled == ["ask"]


async def test_a_job_beyond_the_receivers_limit_is_dead_lettered_with_its_body(
    world: World,
) -> None:
    bus, desk = await serving(world, "dev", max_message=SMALL)
    shop = await started(world, "shop", "dev")
    handle = await shop.submit(Write(text=LONG))
    (letter,) = await world.holds(dead_letter_queue(WORK), 1)
    assert letter.body == b'{"text":"' + LONG.encode() + b'"}'
    with pytest.raises(InvalidArgument, match=r"receiver reads at most 4096 bytes"):
        await handle.result(timeout=20)
    (found,) = await browse(bus._transport, WORK)
    assert (found.record.by, found.record.code) == ("broker", "rejected")
    assert found.record.reason is not None
    assert "larger than its BUS_MAX_MESSAGE" in found.record.reason
    assert await (await shop.submit(Write(text="short"))).result(timeout=20) == Word(text="short")
    assert desk.handled == ["write"]


async def test_an_event_beyond_the_receivers_limit_is_dead_lettered_with_its_body(
    world: World,
) -> None:
    await serving(world, max_message=SMALL)
    owner = await world.bus("desk", auth="off")
    await owner.publish(Told(text=LONG))
    queue = event_queue("desk", contract_of(Told), None)
    (letter,) = await world.holds(dead_letter_queue(queue), 1)
    assert letter.body == b'{"text":"' + LONG.encode() + b'"}'


async def test_a_replayed_dead_letter_beyond_the_limit_waits_for_a_higher_limit(
    virtual_world: MemoryWorld,
) -> None:
    world = virtual_world
    dead = dead_letter_queue(WORK)
    small = await world.bus("desk", auth="off", max_message=SMALL)
    desk = Desk()
    async with small.serving(desk.router):
        shop = await world.bus("shop", auth="off")
        handle = await shop.submit(Write(text=LONG))
        await world.holds(dead, 1)
        assert (await small.replay(WORK, EVERYTHING)).replayed == 1
        await world.holds(dead, 1)
    await serving(world)
    assert (await small.replay(WORK, EVERYTHING)).replayed == 1
    del handle
    await world.holds(dead, 0)


async def test_a_reply_or_result_beyond_the_services_limit_fails_once_for_good(
    world: World,
) -> None:
    _, desk = await serving(world, "dev", max_message=SMALL)
    shop = await started(world, "shop", "dev")
    handle = await shop.submit(Write(text="long"))
    for waiting in (shop.request(Ask(text="long")), handle.result(timeout=20)):
        with pytest.raises(
            FailedPrecondition, match="could not be sent: the message has"
        ) as caught:
            await waiting
        assert caught.value.maybe_executed
        assert not caught.value.retryable
    assert sorted(desk.handled) == ["ask", "write"]
    assert await world.depth(dead_letter_queue(WORK)) == 0


async def test_a_reply_beyond_the_callers_limit_fails_its_call_at_once(
    world: World,
) -> None:
    _, desk = await serving(world, "dev")
    shop = await started(world, "shop", "dev", max_message=SMALL)
    async with asyncio.timeout(20):
        with pytest.raises(FailedPrecondition, match="receiver reads at most 4096") as caught:
            await shop.request(Look(text="long"), timeout=60)
    assert caught.value.maybe_executed
    assert await shop.request(Look(text="short")) == Word(text="short")
    assert desk.handled == ["look", "look"]


async def test_a_result_beyond_the_submitters_limit_fails_its_handle(world: World) -> None:
    await serving(world)
    shop = await world.bus("shop", auth="off", max_message=SMALL)
    handle = await shop.submit(Write(text="long"))
    error: BusError | None = None
    try:
        await handle.result(timeout=20)
    except FailedPrecondition as caught:
        error = caught
    assert error is not None
    assert "receiver reads at most 4096" in str(error)


async def test_a_signed_result_beyond_the_submitters_limit_is_recorded_as_rejected(
    virtual_world: MemoryWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """A proof signs the body, so a result without its body could be of any sender."""
    caplog.set_level(logging.WARNING)
    await serving(virtual_world, "dev")
    shop = await started(virtual_world, "shop", "dev", max_message=SMALL)
    handle = await shop.submit(Write(text="long"))
    with pytest.raises(DeadlineExceeded):
        await handle.result(timeout=20)
    assert "the receiver reads at most 4096 bytes (BUS_MAX_MESSAGE)" in caplog.text


async def test_an_error_beyond_the_services_limit_is_replaced_by_one_that_fits(
    virtual_world: MemoryWorld,
) -> None:
    await serving(virtual_world, max_message=SMALL)
    shop = await virtual_world.bus("shop", auth="off")
    handle = await shop.submit(Write(text="fail"))
    for waiting in (shop.request(Ask(text="fail")), handle.result(timeout=20)):
        with pytest.raises(FailedPrecondition, match="could not be sent: the message has"):
            await waiting
    assert await virtual_world.depth(dead_letter_queue(WORK)) == 1
