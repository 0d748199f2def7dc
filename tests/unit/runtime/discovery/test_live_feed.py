"""The feed of the live view: rounds of questions, announcements, and errors of the broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from bus.errors import BusError, NotFound, PermissionDenied, Unavailable
from bus.messaging.control import Announcement, GetStats, Ping, Target
from bus.messaging.service_info import InstanceState
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from tests.polling import until
from tests.unit.fakes import virtual
from tests.unit.runtime.discovery.fake_asker import FakeAsker
from tests.unit.runtime.discovery.records import handler, stats

READY = InstanceState(service="billing", instance="a", started=1, state="ready")
STOPPING = Announcement(
    service="billing", instance="a", started=1, state="draining", event="stopping"
)
SERVING = stats("a", handlers=[handler()])
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


def loop_time() -> float:
    return asyncio.get_running_loop().time()


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


@dataclass
class Frozen:
    """The function `depth` of a broker that can be stopped with SIGSTOP, or can refuse the user."""

    is_frozen: bool = True
    error: BusError | None = None
    asked: list[str] = field(default_factory=list)

    async def depth(self, queue: str) -> int:
        self.asked.append(queue)
        if self.is_frozen:
            await asyncio.sleep(3600)
        if self.error is not None:
            raise self.error
        return 0


@virtual
async def test_rounds_with_a_broker_that_is_frozen_are_no_missed_rounds() -> None:
    asker, view, broker = FakeAsker([SERVING]), LiveView(clock=loop_time), Frozen()
    feed = LiveFeed(asker, view, GetStats(), depth=broker.depth)
    await feed.ask()
    assert broker.asked == [], "an answer proves that the broker works"
    asker.serve([])
    for _ in range(5):
        await feed.ask()
        assert states(view) == ["ready"]
        assert str(feed.error).startswith("the broker does not answer")
    assert set(broker.asked) == {SERVING.handlers[0].queue}
    broker.is_frozen = False
    for state in ("ready", "ready", "gone"):
        await feed.ask()
        assert (feed.error, states(view)) == (None, [state])
    asked = len(broker.asked)
    await feed.ask()
    assert len(broker.asked) == asked, "no instance is left that could be missed"


@virtual
async def test_a_broker_that_is_frozen_delays_a_round_by_seconds_only() -> None:
    asker, view = FakeAsker([SERVING]), LiveView(clock=loop_time)
    feed = LiveFeed(asker, view, GetStats(), depth=Frozen().depth)
    await feed.ask()
    asker.serve([])
    began = loop_time()
    await feed.ask()
    assert loop_time() - began <= 1 + 3


@pytest.mark.parametrize("error", [NotFound("no queue"), PermissionDenied("no right")])
def test_a_refusal_of_the_broker_proves_that_it_works(error: BusError) -> None:
    @virtual
    async def run() -> None:
        asker, view = FakeAsker([READY]), LiveView(clock=loop_time)
        broker = Frozen(is_frozen=False, error=error)
        feed = LiveFeed(asker, view, Ping(), depth=broker.depth)
        await feed.ask()
        asker.serve([])
        for state in ("ready", "ready", "gone"):
            await feed.ask()
            assert (feed.error, states(view)) == (None, [state])
        assert len(broker.asked) == 3, "an instance without a known queue is missed as well"

    run()


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
