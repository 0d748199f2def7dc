"""The watch of the broker on virtual time: it separates a silent broker from a silent service."""

import asyncio

import pytest

from bus.runtime.broker_watch import RECOVERY_SECONDS, BrokerWatch
from tests.unit.fakes import VirtualLoop, virtual

TIMEOUT = 1.0
"""Configured seconds of a request."""


class Broker:
    """A connection to a broker that answers pings, unless it is frozen."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.connected_at: float | None = self.loop.time() - 100
        self.heard_at = self.loop.time()
        self.is_frozen = self.waits_to_answer = False
        self.pings = 0

    def ping(self) -> None:
        if self.waits_to_answer:
            return
        self.pings += 1
        self.waits_to_answer = True
        if not self.is_frozen:
            self.answer()

    def answer(self) -> None:
        if self.waits_to_answer:
            self.loop.call_later(0.001, self._hear)

    def _hear(self) -> None:
        self.waits_to_answer, self.heard_at = False, self.loop.time()

    async def freeze(self, seconds: float) -> None:
        self.is_frozen = True
        await asyncio.sleep(seconds)
        self.is_frozen = False
        self.answer()


class World:
    """A caller with one request at a time, which never gets a reply."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.loop = self.broker.loop
        self.waiting = 0
        self.watch = BrokerWatch(self.broker, lambda: self.waiting > 0)
        self.watch.expect(TIMEOUT)

    async def time_out(self, seconds: float = TIMEOUT) -> bool:
        """Let a request time out, and return True if the service is to blame."""
        self.waiting += 1
        sent_at = self.loop.time()
        if self.watch.timer is None:
            self.watch.start()
        await asyncio.sleep(seconds)
        self.waiting -= 1
        return self.watch.answered_since(sent_at, self.loop.time())


@virtual
async def test_a_silent_service_is_to_blame_although_nothing_else_arrives() -> None:
    world = World()
    await asyncio.sleep(3600)  # an idle connection
    assert [await world.time_out() for _ in range(5)] == [True] * 5
    assert await world.time_out(10)
    world.watch.close()


@pytest.mark.parametrize("seconds", [0.9, 0.95, 1.0, 1.05, 1.5, 3.0, 20.0])
@pytest.mark.parametrize("begin", [0.0, 0.01, 0.1, 0.24, 0.26])
@virtual
async def test_no_time_out_counts_that_a_frozen_broker_can_have_caused(
    begin: float, seconds: float
) -> None:
    world = World()
    assert await world.time_out()
    calls = [asyncio.create_task(world.time_out())]
    await asyncio.sleep(begin)
    freeze = asyncio.create_task(world.broker.freeze(seconds))
    while not freeze.done():
        await asyncio.sleep(0.02)
        calls.append(asyncio.create_task(world.time_out()))
    results = [await call for call in calls]
    # The first call was sent before the freeze. Only a freeze of its whole time can be its cause.
    assert not any(results[1:])
    assert begin > 0.1 or not results[0]
    await asyncio.sleep(RECOVERY_SECONDS)
    assert await world.time_out()
    world.watch.close()


@virtual
async def test_a_time_out_counts_at_once_in_a_process_that_has_just_started() -> None:
    world = World()
    world.broker.connected_at = world.loop.time()
    assert await world.time_out()
    world.watch.close()


@virtual
async def test_no_time_out_counts_while_services_recover_after_a_reconnect() -> None:
    world = World()
    assert await world.time_out()
    world.broker.connected_at = world.loop.time()
    assert not await world.time_out()
    await asyncio.sleep(RECOVERY_SECONDS - TIMEOUT - 0.01)
    assert not await world.time_out()
    assert await world.time_out()
    world.broker.connected_at = None
    assert not await world.time_out()
    world.watch.close()


@virtual
async def test_no_time_out_counts_if_this_process_was_blocked() -> None:
    world = World()
    assert await world.time_out()
    call = asyncio.create_task(world.time_out())
    await asyncio.sleep(0.3)
    assert isinstance(world.loop, VirtualLoop)
    world.loop._leap.now += 5  # as after a call that blocks the event loop
    assert not await call
    assert not world.watch.was_silent_since(0)
    world.watch.close()


@virtual
async def test_the_broker_is_not_pinged_while_replies_arrive_or_no_request_waits() -> None:
    world = World()
    call = asyncio.create_task(world.time_out(10))
    while not call.done():
        world.broker.heard_at = world.loop.time()
        await asyncio.sleep(0.1)
    assert world.broker.pings == 0
    await asyncio.sleep(100)
    assert world.broker.pings == 0
    assert world.watch.timer is None
    assert await world.time_out(10)
    assert 10 <= world.broker.pings <= 4 * 10
    world.watch.close()


@virtual
async def test_a_frozen_broker_gets_one_ping() -> None:
    world = World()
    freeze = asyncio.create_task(world.broker.freeze(20))
    began = world.loop.time()
    assert not await world.time_out(10)
    assert world.watch.was_silent_since(began)
    assert world.broker.pings == 1
    await freeze
    world.watch.close()


@virtual
async def test_a_shorter_request_shortens_the_interval_of_the_running_watch() -> None:
    world = World()
    long = asyncio.create_task(world.time_out(10))
    await asyncio.sleep(0.3)
    world.watch.expect(0.1)
    assert await world.time_out(0.1)
    assert await long
    world.watch.close()
