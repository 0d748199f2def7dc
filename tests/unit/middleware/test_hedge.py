import asyncio
import gc
from collections.abc import Callable

import pytest

from bus.errors import (
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    NotFound,
    NotServed,
    ResourceExhausted,
    Unavailable,
    executed_of,
)
from bus.messaging.envelope import Envelope
from bus.messaging.instruments import CALLS_HEDGED, CALLS_REJECTED
from bus.messaging.ports.meter import Instrument
from bus.messaging.resilience.call_policy import CallPolicy
from bus.messaging.resilience.destinations import Destination, Destinations
from bus.middleware.hedge import hedge
from bus.storage.memory.meter import MemoryMeter
from tests.unit.fakes import envelope, virtual

QUESTION = envelope("ledger.total.v1")
FIRST, SECOND = envelope(id="first"), envelope(id="second")
Answer = Envelope | BaseException
Sent = list[tuple[float, Envelope]]


class Calls:
    """The inner handler of a test: each copy ends after some seconds, with a reply or an error."""

    def __init__(self, *copies: tuple[float, Answer]) -> None:
        self._copies = [*copies]
        self.sent: Sent = []
        self.cancelled = 0
        self.is_sent: Callable[[str], bool] = lambda _: True
        self.meter = MemoryMeter()
        self.budget: float | None = 0.2

    async def inner(self, message: Envelope) -> Envelope:
        self.sent.append((asyncio.get_running_loop().time(), message))
        seconds, answer = self._copies.pop(0)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def destination(self) -> Destination:
        policy = CallPolicy(hedge_after=1, retry_budget=self.budget)
        owner = Destinations({}, policy, timer=now, meter=self.meter)
        return owner.of("ledger.total.v1")

    async def call(self, destination: Destination | None = None) -> Envelope | None:
        layer = hedge(destination or self.destination(), is_sent=self.is_sent)
        return await layer(self.inner)(QUESTION)

    @property
    def hedged(self) -> float:
        return self.counted(CALLS_HEDGED, "ledger.total", "1")

    def counted(self, instrument: Instrument, *labels: str) -> float:
        series = [each for each in self.meter.snapshot() if each.name == instrument.name]
        assert all(tuple(each.labels.values()) == labels for each in series)
        return sum(each.value for each in series)


def of_service(error: BusError) -> BusError:
    error.origin = "service"
    return error


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_a_reply_in_time_causes_no_second_copy_and_no_task() -> None:
    calls = Calls((0.9, FIRST))
    assert await calls.call() is FIRST
    assert calls.hedged == 0
    assert len(calls.sent) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_a_late_reply_causes_one_second_copy_with_the_same_id() -> None:
    calls = Calls((5, FIRST), (0.5, SECOND))
    assert await calls.call() is SECOND
    assert calls.sent == [(0, QUESTION), (1, QUESTION)]
    assert now() == pytest.approx(1.5)
    assert calls.hedged == 1
    assert calls.cancelled == 1


@virtual
async def test_a_request_has_at_most_one_second_copy() -> None:
    calls = Calls((50, FIRST), (60, SECOND))
    calls.budget = None
    assert await calls.call() is FIRST
    assert len(calls.sent) == 2


@virtual
async def test_the_second_copy_is_cancelled_if_the_first_reply_arrives() -> None:
    calls = Calls((1.2, FIRST), (5, SECOND))
    assert await calls.call() is FIRST
    await asyncio.sleep(0)
    assert calls.cancelled == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_a_budget_without_tokens_permits_no_second_copy() -> None:
    calls = Calls((5, FIRST))
    destination = calls.destination()
    assert destination.budget is not None
    assert destination.budget.take()
    assert await calls.call(destination) is FIRST
    assert calls.hedged == 0
    assert calls.counted(CALLS_REJECTED, "ledger.total", "1", "budget") == 1


@virtual
async def test_a_second_copy_takes_a_token_of_the_retry_budget() -> None:
    calls = Calls((5, FIRST), (1, SECOND))
    destination = calls.destination()
    assert await calls.call(destination) is SECOND
    assert destination.budget is not None
    assert not destination.budget.take()


@virtual
async def test_a_first_copy_that_fails_in_time_is_not_hedged() -> None:
    calls = Calls((0.5, Unavailable("x")))
    with pytest.raises(Unavailable):
        await calls.call()
    await asyncio.sleep(5)
    assert len(calls.sent) == 1


@virtual
async def test_a_request_that_is_not_sent_is_hedged_only_after_it_was_sent() -> None:
    calls = Calls((9, FIRST), (1, SECOND))
    calls.is_sent = lambda _: now() > 2.5
    assert await calls.call() is SECOND
    assert [at for at, _ in calls.sent] == [0, 4]  # sent between 2 and 3 s


@pytest.mark.parametrize(
    "error", [Unavailable("x"), NotServed("x"), ResourceExhausted("x"), of_service(Unavailable())]
)
def test_a_second_copy_that_fails_leaves_the_first_to_answer(error: BusError) -> None:
    @virtual
    async def run() -> None:
        calls = Calls((3, FIRST), (0.5, error))
        assert await calls.call() is FIRST
        assert now() == pytest.approx(3)

    run()


@virtual
async def test_a_first_copy_that_fails_leaves_the_second_to_answer() -> None:
    calls = Calls((1.5, of_service(Unavailable("busy"))), (3, SECOND))
    assert await calls.call() is SECOND
    assert now() == pytest.approx(4)


@virtual
async def test_an_error_that_answers_both_copies_ends_the_call() -> None:
    error = of_service(Unavailable("busy", retry_after=7))
    error.answered_copies = 2
    calls = Calls((1.5, error), (9, SECOND))
    with pytest.raises(Unavailable, match="busy") as caught:
        await calls.call()
    await asyncio.sleep(0)
    assert now() == pytest.approx(1.5)
    assert caught.value.retry_after == 7
    assert calls.cancelled == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_a_final_error_of_a_copy_ends_the_call(is_first: bool) -> None:
    @virtual
    async def run() -> None:
        failed = (0.5, of_service(NotFound("none")))
        calls = Calls((1.5, failed[1]), (9, SECOND)) if is_first else Calls((9, FIRST), failed)
        with pytest.raises(NotFound):
            await calls.call()
        await asyncio.sleep(0)
        assert now() == pytest.approx(1.5)
        assert calls.cancelled == 1

    run()


@pytest.mark.parametrize("error", [ConnectionLost("lost"), DeadlineExceeded("late")])
def test_a_lost_connection_or_the_end_of_the_time_ends_both_copies(error: BusError) -> None:
    @virtual
    async def run() -> None:
        calls = Calls((2, error), (9, SECOND))
        with pytest.raises(type(error)):
            await calls.call()
        await asyncio.sleep(0)
        assert now() == pytest.approx(2)
        assert calls.cancelled == 1

    run()


@pytest.mark.parametrize("seconds", [(2.0, 0.5), (1.5, 2.0)], ids=["second first", "first first"])
def test_if_both_copies_fail_the_last_error_is_raised_with_the_doubt_of_the_other(
    seconds: tuple[float, float],
) -> None:
    @virtual
    async def run() -> None:
        doubtful = of_service(Unavailable("doubtful"))
        refused = of_service(Unavailable("refused", executed="no"))
        is_first_last = seconds[0] > seconds[1] + 1
        answers = (refused, doubtful) if is_first_last else (doubtful, refused)
        calls = Calls((seconds[0], answers[0]), (seconds[1], answers[1]))
        with pytest.raises(Unavailable, match="refused") as caught:
            await calls.call()
        assert caught.value.maybe_executed
        assert caught.value.stated_executed == "maybe"

    run()


@virtual
async def test_the_error_of_the_service_is_raised_if_this_process_rejects_the_second_copy() -> None:
    calls = Calls((1.5, of_service(Unavailable("busy"))), (3, Unavailable("no slot")))
    with pytest.raises(Unavailable, match="busy"):
        await calls.call()


@virtual
async def test_a_second_copy_in_flight_when_the_bus_is_closed_leaves_its_doubt() -> None:
    refused = of_service(Unavailable("refused", executed="no"))
    closed = ConnectionLost("the bus was closed", maybe_executed=True)
    closed.origin = "local"
    with pytest.raises(ConnectionLost) as caught:
        await Calls((1.5, refused), (3, closed)).call()
    assert executed_of(caught.value) == "maybe"


@virtual
async def test_a_copy_that_answers_in_the_tick_of_the_first_error_is_the_result() -> None:
    answered = asyncio.Event()
    seen = 0

    async def inner(message: Envelope) -> Envelope:
        nonlocal seen
        seen += 1
        is_first = seen == 1
        await answered.wait()
        if is_first:
            await asyncio.sleep(0)
            raise Unavailable("x")
        return SECOND

    call = hedge(Calls().destination(), is_sent=lambda _: True)(inner)(QUESTION)
    task = asyncio.ensure_future(call)
    await asyncio.sleep(2)
    answered.set()
    assert await task is SECOND


@virtual
async def test_a_cancelled_caller_cancels_both_copies() -> None:
    calls = Calls((9, FIRST), (9, SECOND))
    task = asyncio.ensure_future(calls.call())
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert calls.cancelled == 2


@virtual
async def test_a_second_copy_that_wins_does_not_swallow_the_cancellation_of_the_caller() -> None:
    calls = Calls((9, FIRST), (1, SECOND))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await calls.call()
    calls = Calls((9, FIRST), (1, SECOND))
    async with asyncio.timeout(2.5):
        assert await calls.call() is SECOND
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual
async def test_a_thousand_hedged_calls_leave_no_task_no_timer_and_no_object() -> None:
    meter = MemoryMeter()

    async def one(number: int) -> None:
        calls = Calls((5, FIRST), (0.1 + number % 6, SECOND))
        calls.meter, calls.budget = meter, None
        assert await calls.call() in (FIRST, SECOND)

    loop = asyncio.get_running_loop()
    await one(0)
    gc.collect()
    gc.disable()  # an object in a reference cycle would wait for the collector
    try:
        before = len(gc.get_objects())
        await asyncio.gather(*(one(number) for number in range(1000)))
        await asyncio.sleep(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert vars(loop).get("_scheduled") == []
        assert len(gc.get_objects()) - before < 200
    finally:
        gc.enable()
