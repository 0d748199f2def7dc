"""The bulkhead of a called service, around a send of the test."""

import asyncio
import gc
import random
import weakref
from collections.abc import Sequence

import pytest

from bus.errors import (
    BusError,
    DeadlineExceeded,
    ResourceExhausted,
    Unavailable,
    executed_of,
)
from bus.messaging.call_limits import CallLimits
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Middleware, compose
from bus.messaging.resilience.call_policy import BreakerPolicy, CallPolicy
from bus.messaging.resilience.destinations import Destinations
from bus.middleware.bulkhead import bulkhead
from bus.middleware.stacks import call_policies
from bus.storage.memory.meter import MemoryMeter
from tests.unit.fakes import NOW, envelope, settle_down, virtual

QUOTE, PAY = "billing.quote.v1", "billing.pay.v1"
Call = asyncio.Task[Envelope | None]


class Process:
    """A process that calls the service `billing`, whose requests end when the test says so."""

    def __init__(self, policy: CallPolicy) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.meter = MemoryMeter(clock=lambda: NOW)
        self.destinations = Destinations(
            {},
            policy,
            timer=loop.time,
            clock=lambda: NOW + loop.time() - began,
            meter=self.meter,
        )
        self.sent: list[str] = []
        self.running: dict[str, asyncio.Future[None]] = {}
        self.most = 0

    async def send(self, message: Envelope) -> Envelope:
        self.sent.append(message.id)
        self.running[message.id] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.running))
        try:
            await self.running[message.id]
        finally:
            del self.running[message.id]
        return message

    def call(self, id_: str, type_: str = QUOTE, timeout: float = 10) -> Call:
        """Start a request with the bulkhead as its only policy."""
        destination = self.destinations.of(type_)
        assert destination.bulkhead is not None
        return self.call_through([bulkhead(destination, destination.bulkhead)], id_, type_, timeout)

    def call_through(
        self, layers: Sequence[Middleware], id_: str, type_: str = QUOTE, timeout: float = 10
    ) -> Call:
        deadline = int((self.destinations.clock() + timeout) * 1000)
        message = envelope(type_, id=id_, deadline=deadline)

        async def run() -> Envelope | None:
            return await compose(layers, self.send)(message)

        return asyncio.get_running_loop().create_task(run())

    async def end(self, id_: str) -> None:
        self.running[id_].set_result(None)
        await settle_down()

    def value(self, name: str, *labels: str) -> float:
        """Return the value of a series."""
        (series,) = (
            each
            for each in self.meter.snapshot()
            if each.name == name and tuple(each.labels.values()) == labels
        )
        assert series.value is not None
        return series.value


async def error_of(call: Call) -> BusError:
    with pytest.raises(BusError) as caught:
        await call
    return caught.value


def bounded(max_in_flight: int, max_waiting: int = 10) -> Process:
    return Process(CallPolicy(max_in_flight=max_in_flight, max_waiting=max_waiting))


@virtual
async def test_requests_above_the_limit_wait_in_the_order_of_their_calls() -> None:
    process = bounded(2)
    calls = [process.call(id_) for id_ in "abcd"]
    await settle_down()
    assert process.sent == ["a", "b"]
    await process.end("b")
    await process.end("c")
    assert process.sent == ["a", "b", "c", "d"]
    await process.end("a")
    await process.end("d")
    replies = await asyncio.gather(*calls)
    assert [reply and reply.id for reply in replies] == ["a", "b", "c", "d"]
    assert process.most == 2


@virtual
async def test_all_operations_of_a_service_share_its_permits() -> None:
    process = bounded(1)
    first = process.call("a", QUOTE)
    second = process.call("b", PAY)
    other = process.call("c", "office.open.v1")
    await settle_down()
    assert process.sent == ["a", "c"]
    for id_ in ("a", "b", "c"):
        await process.end(id_)
    await asyncio.gather(first, second, other)


@virtual
async def test_a_loop_of_refused_requests_lets_other_tasks_run() -> None:
    process, turns = bounded(1, max_waiting=0), list[int]()
    first = process.call("a")
    await settle_down()
    destination = process.destinations.of(QUOTE)
    assert destination.bulkhead is not None
    refused = compose([bulkhead(destination, destination.bulkhead)], process.send)

    async def other() -> None:
        for turn in range(20):
            turns.append(turn)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(20):
        with pytest.raises(ResourceExhausted):
            await refused(envelope(QUOTE))
    assert len(turns) >= 19
    await task
    await process.end("a")
    await first


@virtual
async def test_a_request_that_cannot_wait_fails_at_once_and_was_certainly_not_sent() -> None:
    process = bounded(1, max_waiting=1)
    calls = [process.call(id_) for id_ in "ab"]
    await settle_down()
    error = await error_of(process.call("c"))
    assert isinstance(error, ResourceExhausted)
    assert (executed_of(error), error.origin, error.maybe_executed) == ("no", "local", False)
    assert str(error) == (
        "billing.quote.v1: the request was not sent, because 1 request to the service billing "
        "waits for a reply, and 1 more waits to be sent. Send fewer requests at a time, or raise "
        "max_in_flight or max_waiting of the service billing in the settings."
    )
    assert process.value("calls.rejected", "billing.quote", "1", "bulkhead") == 1
    await process.end("a")
    await process.end("b")
    await asyncio.gather(*calls)


@virtual
async def test_the_error_of_a_bulkhead_without_waiting_requests_names_the_limit() -> None:
    process = bounded(1, max_waiting=0)
    first = process.call("a")
    await settle_down()
    assert str(await error_of(process.call("b"))) == (
        "billing.quote.v1: the request was not sent, because 1 request to the service billing "
        "waits for a reply, and max_waiting permits no more. Send fewer requests at a time, or "
        "raise max_in_flight or max_waiting of the service billing in the settings."
    )
    await process.end("a")
    await first


@virtual
async def test_a_request_that_waits_ends_at_its_deadline_and_was_certainly_not_sent() -> None:
    process = bounded(1)
    began = asyncio.get_running_loop().time()
    first = process.call("a")
    await settle_down()
    error = await error_of(process.call("b", timeout=2))
    assert isinstance(error, DeadlineExceeded)
    assert asyncio.get_running_loop().time() - began == pytest.approx(2, abs=0.01)
    assert (executed_of(error), error.origin, error.had_full_time) == ("no", "local", False)
    assert str(error) == (
        "billing.quote.v1: the request was not sent before its deadline, because 1 request to the "
        "service billing waits for a reply. Send fewer requests at a time, raise max_in_flight of "
        "the service billing in the settings, or raise the timeout."
    )
    await process.end("a")
    await first
    assert process.sent == ["a"]
    assert process.value("bulkhead.waiting", "billing") == 0


@virtual
async def test_a_late_request_names_the_setting_that_is_its_timeout() -> None:
    process = bounded(1)
    first = process.call("a")
    await settle_down()
    destination = process.destinations.of(QUOTE)
    assert destination.bulkhead is not None
    message = envelope(
        QUOTE,
        deadline=int((process.destinations.clock() + 1) * 1000),
        limits=CallLimits(setting="BUS_SERVICES__BILLING__TIMEOUT"),
    )
    handler = compose([bulkhead(destination, destination.bulkhead)], process.send)
    with pytest.raises(DeadlineExceeded, match=r"the timeout \(BUS_SERVICES__BILLING__TIMEOUT\)"):
        await handler(message)
    await process.end("a")
    await first


@virtual
async def test_a_request_that_is_cancelled_while_it_waits_takes_no_permit() -> None:
    process = bounded(1)
    first, second, third = (process.call(id_) for id_ in "abc")
    await settle_down()
    second.cancel()
    await settle_down()
    await process.end("a")
    assert process.sent == ["a", "c"]
    await process.end("c")
    await asyncio.gather(first, third)


@virtual
async def test_a_request_that_is_cancelled_at_its_turn_gives_its_permit_on() -> None:
    process = bounded(1)
    first, second, third = (process.call(id_) for id_ in "abc")
    await settle_down()
    # The cancellation comes after the permit was passed on, and before the request continues.
    process.running["a"].set_result(None)
    asyncio.get_running_loop().call_soon(second.cancel)
    await settle_down()
    assert first.done()
    assert second.cancelled()
    assert process.sent == ["a", "c"]
    await process.end("c")
    await third
    assert process.value("bulkhead.in_flight", "billing") == 0


@virtual
async def test_a_request_that_is_cancelled_in_the_same_moment_as_its_deadline_leaves() -> None:
    process = bounded(1)
    loop = asyncio.get_running_loop()
    first = process.call("a")
    second = process.call("b", timeout=2)
    await settle_down()
    loop.call_later(2, second.cancel)
    await asyncio.wait([second])
    await process.end("a")
    await first
    assert process.value("bulkhead.in_flight", "billing") == 0


@virtual
async def test_a_failed_or_cancelled_request_gives_its_permit_back() -> None:
    process = bounded(1)
    failed = process.call("a")
    await settle_down()
    process.running["a"].set_exception(Unavailable("down"))
    assert isinstance(await error_of(failed), Unavailable)
    cancelled = process.call("b")
    await settle_down()
    cancelled.cancel()
    await settle_down()
    last = process.call("c")
    await settle_down()
    assert process.sent == ["a", "b", "c"]
    await process.end("c")
    await last


@virtual
async def test_the_gauges_are_the_numbers_at_the_time_of_the_read() -> None:
    process = bounded(2)
    calls = [process.call(id_) for id_ in "abc"]
    await settle_down()
    assert process.value("bulkhead.in_flight", "billing") == 2
    assert process.value("bulkhead.waiting", "billing") == 1
    for id_ in "abc":
        await process.end(id_)
    await asyncio.gather(*calls)
    assert process.value("bulkhead.in_flight", "billing") == 0
    assert process.value("bulkhead.waiting", "billing") == 0


@virtual
async def test_waiting_requests_end_when_the_circuit_breaker_opens() -> None:
    policy = CallPolicy(
        retries=0, max_in_flight=2, breaker=BreakerPolicy(consecutive_failures=1, open_time=30)
    )
    process = Process(policy)
    layers = call_policies(process.destinations.of(QUOTE))
    others = call_policies(process.destinations.of(PAY))
    first, second, third = (process.call_through(layers, id_) for id_ in "abc")
    other = process.call_through(others, "d", PAY)
    await settle_down()
    down = Unavailable("down")
    down.origin = "service"
    process.running["a"].set_exception(down)
    assert (await error_of(first)) is down
    error = await error_of(third)
    assert "the circuit breaker is open" in str(error)
    assert (executed_of(error), error.origin) == ("no", "local")
    assert error.retry_after == pytest.approx(30, rel=0.3)
    await settle_down()
    assert process.sent == ["a", "b", "d"], (
        "another operation of the service has a breaker of its own"
    )
    await process.end("b")
    await process.end("d")
    await asyncio.gather(second, other)


@virtual
async def test_waiting_requests_end_when_an_operator_isolates_their_operation() -> None:
    process = Process(CallPolicy(retries=0, max_in_flight=1))
    destination = process.destinations.of(QUOTE)
    layers = call_policies(destination)
    first, second = (process.call_through(layers, id_) for id_ in "ab")
    await settle_down()
    assert destination.breaker is not None
    destination.breaker.isolate(int((NOW + 60) * 1000), "ada", "a release")
    assert "isolated" in str(await error_of(second))
    await process.end("a")
    await first


@virtual
async def test_a_request_that_ended_while_it_waited_leaves_no_reference_cycle() -> None:
    process = bounded(1)
    first = process.call("a")
    await settle_down()
    gc.collect()
    gc.disable()
    try:
        destination = process.destinations.of(QUOTE)
        assert destination.bulkhead is not None
        handler = compose([bulkhead(destination, destination.bulkhead)], process.send)
        deadline = int((process.destinations.clock() + 1) * 1000)
        with pytest.raises(DeadlineExceeded) as caught:
            await handler(envelope(QUOTE, deadline=deadline))
        seen = weakref.ref(caught.value)
        del caught
        assert seen() is None
    finally:
        gc.enable()
    await process.end("a")
    await first


@virtual
async def test_a_service_without_a_limit_has_no_bulkhead() -> None:
    process = Process(CallPolicy(max_in_flight=None, breaker=None, retries=0))
    destination = process.destinations.of(QUOTE)
    assert destination.bulkhead is None
    assert call_policies(destination) == []


@pytest.mark.parametrize("seed", range(5))
@virtual
async def test_no_permit_is_lost_if_requests_end_are_cancelled_and_time_out_at_random(
    seed: int,
) -> None:
    choice, process = random.Random(seed), bounded(3, max_waiting=20)
    calls: list[Call] = []
    for number in range(600):
        running = [future for future in process.running.values() if not future.done()]
        match choice.choice(["call", "call", "end", "cancel", "wait"]):
            case "call":
                calls.append(process.call(str(number), timeout=choice.choice([0.01, 0.05, 10])))
            case "end" if running:
                choice.choice(running).set_result(None)
            case "cancel" if calls:
                choice.choice(calls).cancel()
            case _:
                await asyncio.sleep(choice.choice([0, 0, 0, 0.001, 0.02]))
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert process.most == 3
    assert process.value("bulkhead.in_flight", "billing") == 0
    assert process.value("bulkhead.waiting", "billing") == 0
