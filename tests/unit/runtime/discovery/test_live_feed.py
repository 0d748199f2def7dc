"""The feed of the live view: rounds of questions, announcements, and errors of the broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus.errors import PermissionDenied, Unavailable
from bus.messaging.control import Announcement, Ping, Target
from bus.messaging.service_info import InstanceState
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from tests.polling import until
from tests.unit.fakes import virtual
from tests.unit.runtime.discovery.fake_asker import FakeAsker

READY = InstanceState(service="billing", instance="a", started=1, state="ready")
STOPPING = Announcement(
    service="billing", instance="a", started=1, state="draining", event="stopping"
)
BRIEF = 0.005


@asynccontextmanager
async def feeding(asker: FakeAsker, view: LiveView) -> AsyncIterator[LiveFeed]:
    feed = LiveFeed(asker, view, Ping(), interval=BRIEF, window=BRIEF)
    running = asyncio.ensure_future(feed.run(lambda: None))
    try:
        yield feed
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def states(view: LiveView) -> list[str]:
    return [each.state for each in view.instances()]


async def test_the_feed_asks_until_an_instance_that_does_not_answer_is_gone() -> None:
    asker, view = FakeAsker([READY]), LiveView()
    async with feeding(asker, view):
        await until(lambda: states(view) == ["ready"], "the first round")
        asker.serve([])
        await until(lambda: states(view) == ["gone"], "three rounds without an answer")


async def test_an_announcement_is_seen_without_a_round() -> None:
    asker, view = FakeAsker([READY]), LiveView()
    feed = LiveFeed(asker, view, Ping(), Target("billing"), interval=3600, window=BRIEF)
    changes: list[list[str]] = []
    running = asyncio.ensure_future(feed.run(lambda: changes.append(states(view))))
    await until(lambda: changes == [["ready"]], "the first round")
    asker.announced.put_nowait(STOPPING)
    await until(lambda: changes[1:] == [["draining"]], "the announcement")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert asker.asked == [(Ping(), Target("billing"), None)]


async def test_rounds_without_a_broker_are_no_missed_rounds() -> None:
    asker, view = FakeAsker([READY]), LiveView()
    async with feeding(asker, view) as feed:
        await until(lambda: states(view) == ["ready"], "the first round")
        asker.error = Unavailable("the broker is not connected")
        asked = len(asker.asked)
        await until(lambda: len(asker.asked) > asked + 5, "rounds without a broker")
        assert (feed.error, states(view)) == (asker.error, ["ready"])
        asker.error = None
        await until(lambda: feed.error is None, "a round with the broker")


async def test_an_asker_without_the_right_ends_the_feed() -> None:
    asker = FakeAsker()
    asker.error = PermissionDenied("no right to ask")
    with pytest.raises(PermissionDenied):
        await LiveFeed(asker, LiveView(), Ping()).run(lambda: None)


@virtual
async def test_a_feed_that_may_not_listen_tries_it_ever_more_rarely() -> None:
    asker = FakeAsker([READY])
    asker.listening_error = Unavailable("the broker refused the queue")
    running = asyncio.ensure_future(LiveFeed(asker, LiveView(), Ping()).run(lambda: None))
    await asyncio.sleep(300)
    assert asker.listened == 10  # after 0, 1, 3, 7, 15, 31, 63, 123, 183 and 243 s
    asker.listening_error = None
    await asyncio.sleep(60)
    assert asker.listeners == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert asker.listeners == 0
