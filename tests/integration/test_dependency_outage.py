"""A dependency that is down, on a real RabbitMQ with two processes of the service."""

import asyncio
import time
from collections import Counter
from itertools import pairwise

import pytest

from bus import Bus, Context, Dependency, Event, Router, contract
from bus.messaging.ports.transport import Delivery
from bus.runtime.consumer_cancellation import AckHold
from bus.runtime.receiver import Receiver
from bus.settings import load_settings
from tests.polling import until
from tests.stolen_time import StolenTime

THRESHOLD, CONCURRENCY, OUTAGE, MESSAGES = 5, 4, 3.0, 500
QUEUE = "library.events.printing.printed.v1"


class ShelfDown(Exception):
    """The dependency of the handler is down."""


@contract("printing.printed", version=1)
class Printed(Event):
    """A book was printed."""

    number: int


class Shelf:
    """A dependency with the calls of one process."""

    down = False

    def __init__(
        self, *, concurrency: int, probe_interval: float = 1.0, seconds: float = 0.005
    ) -> None:
        self.seconds = seconds
        """Duration of each call."""
        self.calls: list[float] = []
        """Times of the calls while it was down."""
        self.done: list[int] = []
        self.attempts: Counter[int] = Counter()
        self.router = Router("library")
        shelf = Dependency(
            name="shelf",
            failures=(ShelfDown,),
            consecutive_failures=THRESHOLD,
            probe_interval=probe_interval,
        )
        self.router.event(Printed, dependency=shelf, concurrency=concurrency)(self.put)

    async def put(self, event: Printed, context: Context) -> None:
        self.attempts[context.envelope.attempt] += 1
        is_down = Shelf.down
        if is_down:
            self.calls.append(time.monotonic())
        await asyncio.sleep(self.seconds)
        if is_down:
            raise ShelfDown
        self.done.append(event.number)


@pytest.fixture
def deliveries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, object]]:
    """Return the list of (redelivered, delivery count of the broker) of all deliveries."""
    seen: list[tuple[bool, object]] = []
    original = Receiver.on_delivery

    def on_delivery(self: Receiver, delivery: Delivery, hold: AckHold | None = None) -> None:
        seen.append((delivery.redelivered, delivery.broker_headers.get("x-delivery-count")))
        original(self, delivery, hold)

    monkeypatch.setattr(Receiver, "on_delivery", on_delivery)
    return seen


async def test_two_processes_wait_for_a_dependency_and_lose_no_message_attempt_or_delivery(
    vhost_url: str, deliveries: list[tuple[bool, object]]
) -> None:
    shelves = [Shelf(concurrency=CONCURRENCY), Shelf(concurrency=CONCURRENCY)]
    settings = load_settings(url=vhost_url, auth="off")

    def done() -> int:
        return sum(len(shelf.done) for shelf in shelves)

    async with (
        StolenTime() as stolen,
        Bus("library", settings=settings) as first,
        Bus("library", settings=settings) as second,
        Bus("printing", settings=settings) as printing,
        first.serving(shelves[0].router),
        second.serving(shelves[1].router),
    ):
        await asyncio.gather(*(printing.publish(Printed(number=each)) for each in range(20)))
        await until(lambda: done() == 20, "the full prefetch of both processes")
        Shelf.down = True
        try:
            await asyncio.gather(
                *(printing.publish(Printed(number=20 + each)) for each in range(MESSAGES))
            )
            began = time.monotonic()
            await until(lambda: time.monotonic() - began >= OUTAGE, "the end of the outage")
            assert first.ready
            assert second.ready
        finally:
            Shelf.down = False
        returned, before = time.perf_counter(), done()
        await until(lambda: done() > before, "a message that is handled", poll=0.001)
        worked = time.perf_counter()
        await until(lambda: done() == 20 + MESSAGES, "all messages")
        letters = await first.dead_letters(QUEUE)
        until_work = worked - returned - stolen.between(returned, worked)

    assert until_work <= 1.0 + 0.5  # the probe interval, and the time of the probe
    assert sorted(number for shelf in shelves for number in shelf.done) == [*range(20 + MESSAGES)]
    assert letters == []
    for shelf in shelves:
        assert set(shelf.attempts) == {1}
        seconds = shelf.calls[-1] - shelf.calls[0]
        assert len(shelf.calls) <= THRESHOLD + int(seconds) + 1
        assert all(later - earlier >= 0.99 for earlier, later in pairwise(shelf.calls[THRESHOLD:]))
    assert set(deliveries) <= {(False, None), (False, 0)}


async def test_a_burst_into_an_idle_queue_makes_no_more_calls_than_the_bound(
    vhost_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "down", True)
    shelf = Shelf(concurrency=8, probe_interval=30, seconds=0.2)
    settings = load_settings(url=vhost_url, auth="off")
    async with (
        Bus("library", settings=settings) as library,
        Bus("printing", settings=settings) as printing,
        library.serving(shelf.router),
    ):
        await printing.publish(Printed(number=0))
        await until(lambda: len(shelf.calls) == 1, "the first call")
        await asyncio.gather(*(printing.publish(Printed(number=each)) for each in range(1, 40)))
        await until(lambda: library.report.pauses, "an open breaker")
        opened = time.monotonic()
        await until(lambda: time.monotonic() - opened > 0.5, "further calls")
    # At most the concurrency, which is larger than the threshold. If the first message failed
    # before the others arrived, only as many as the threshold.
    assert THRESHOLD <= len(shelf.calls) <= 8
