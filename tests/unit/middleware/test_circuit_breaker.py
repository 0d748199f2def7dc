"""The circuit breaker around the calls of one operation."""

import asyncio
from typing import Any

import pytest

from bus.errors import (
    Aborted,
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    NotServed,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    executed_of,
)
from bus.messaging.envelope import Envelope
from bus.messaging.handler import compose
from bus.messaging.instruments import CALLS_REJECTED
from bus.messaging.resilience.call_policy import BreakerPolicy, CallPolicy
from bus.messaging.resilience.destinations import Destinations
from bus.messaging.send_time import current_send
from bus.middleware.stacks import call_policies
from bus.storage.memory.meter import MemoryMeter
from tests.unit import ledger  # noqa: F401 - declares the contracts of these types
from tests.unit.fakes import NOW, envelope, virtual

TYPE = "ledger.total.v1"


def of_service(error: BusError, **attributes: Any) -> BusError:
    """Return the error as a caller receives it from the service."""
    error.origin = "service"
    vars(error).update(attributes)
    return error


def of_broker(error: BusError) -> BusError:
    error.origin = "broker"
    return error


class Calls:
    """Requests with the policies of their destination, to a service that a test controls."""

    def __init__(self, retries: int = 0, **policy: Any) -> None:
        loop = asyncio.get_running_loop()
        self.meter = MemoryMeter()
        call_policy = CallPolicy(retries=retries, breaker=BreakerPolicy(**policy))
        destinations = Destinations(
            {},
            call_policy,
            timer=loop.time,
            clock=lambda: NOW + loop.time(),
            meter=self.meter,
        )
        destination = destinations.of(TYPE)
        assert destination.breaker is not None
        self.breaker = destination.breaker
        self.error: BaseException | None = None
        self.seconds = self.seconds_before = 0.0
        self.sent = 0
        self._call = compose(call_policies(destination), self._send)

    async def _send(self, request: Envelope) -> Envelope:
        await asyncio.sleep(self.seconds_before)
        if (time := current_send.get()) is not None:
            time.at = asyncio.get_running_loop().time()
        self.sent += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return request

    async def request(self, times: int = 1, error: BaseException | None = None) -> None:
        """Send requests that succeed, or that fail with `error`."""
        self.error = error
        for _ in range(times):
            if error is None:
                await self._call(envelope(TYPE))
            else:
                with pytest.raises(type(error)):
                    await self._call(envelope(TYPE))

    async def rejection(self) -> BusError:
        with pytest.raises(Unavailable) as caught:
            await self.request()
        return caught.value

    def rejected(self) -> int:
        series = [each for each in self.meter.snapshot() if each.name == CALLS_REJECTED.name]
        assert all(
            each.labels == {"operation": "ledger.total", "version": "1", "policy": "breaker"}
            for each in series
        )
        return sum(int(each.value) for each in series)


FAILURES = [
    of_service(Unavailable("the database is down")),
    of_service(ResourceExhausted("too many messages")),
    of_service(ResourceExhausted("refused", executed="no")),
    of_service(ResourceExhausted("failed in the handler", retry_after=1)),
    of_service(Unavailable("back soon", executed="no", retry_after=1)),
    of_service(DeadlineExceeded("no reply", maybe_executed=True), had_full_time=True),
]
SUCCESSES = [
    of_service(error)
    for error in (
        NotFound("no such account"),
        InvalidArgument("wrong"),
        PermissionDenied("not allowed"),
        Aborted("conflict"),
        Internal("a bug"),
    )
]
REFUSED = of_service(ResourceExhausted("overloaded", executed="no", retry_after=0.5))
IGNORED = [
    REFUSED,
    of_service(Unavailable("delivered twice, after a lost connection", maybe_executed=True)),
    of_service(DeadlineExceeded("less time than the service may take", maybe_executed=True)),
    of_broker(DeadlineExceeded("the broker was silent", maybe_executed=True)),
    of_broker(Unavailable("not connected")),
    of_broker(ResourceExhausted("nacked")),
    ConnectionLost("lost", maybe_executed=True),
    NotServed("no queue"),
    Unavailable("this bus is not open"),
    ResourceExhausted("the bulkhead is full", executed="no"),
    DeadlineExceeded("the deadline passed before the send"),
    InvalidArgument("too large"),
    ValueError("a middleware failed"),
    asyncio.CancelledError(),
]


def name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("error", FAILURES, ids=name)
@virtual
async def test_temporary_errors_and_full_time_outs_of_the_service_open_the_breaker(
    error: BusError,
) -> None:
    calls = Calls()
    await calls.request(5, error)
    assert calls.breaker.state == "open"
    assert calls.breaker.cause == f"5 consecutive failures ({error.code})"


@pytest.mark.parametrize("error", SUCCESSES, ids=name)
@virtual
async def test_other_errors_of_the_service_show_that_it_works(error: BusError) -> None:
    calls = Calls()
    await calls.request(4, FAILURES[0])
    await calls.request(1, error)
    await calls.request(4, FAILURES[0])
    info = calls.breaker.info()
    assert (info.state, info.calls, info.failures) == ("closed", 9, 8)


@pytest.mark.parametrize("error", IGNORED, ids=name)
@virtual
async def test_errors_of_this_process_of_the_broker_and_of_load_control_count_nothing(
    error: BaseException,
) -> None:
    calls = Calls()
    await calls.request(100, error)
    info = calls.breaker.info()
    assert (info.state, info.calls) == ("closed", 0)


@virtual
async def test_a_rejected_request_is_not_sent_and_tells_when_to_try_again() -> None:
    calls = Calls()
    await calls.request(5, FAILURES[0])
    assert calls.breaker.retry_after is not None
    await asyncio.sleep(10)
    error = await calls.rejection()
    assert (calls.sent, calls.rejected()) == (5, 1)
    assert (error.origin, executed_of(error), error.maybe_executed) == ("local", "no", False)
    assert error.retry_after is not None
    assert 20 <= error.retry_after <= 26
    seconds = f"{error.retry_after:.2f}".rstrip("0").rstrip(".")
    assert str(error) == (
        "ledger.total.v1: the request was not sent, because the circuit breaker is open since "
        "2023-11-14 22:13:20 UTC, after 5 consecutive failures (unavailable). Try again in "
        f"{seconds} s, or inspect the breaker with `bus breakers list`."
    )


@virtual
async def test_a_loop_of_rejected_requests_lets_other_tasks_run() -> None:
    calls, turns = Calls(), list[int]()
    await calls.request(5, FAILURES[0])

    async def other() -> None:
        for turn in range(20):
            turns.append(turn)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(20):
        await calls.rejection()
    assert len(turns) >= 19
    await task


@virtual
async def test_a_request_to_an_isolated_operation_tells_it_without_the_operators_text() -> None:
    calls = Calls()
    calls.breaker.isolate(int((NOW + 60) * 1000), "anna", "the patient data moves")
    text = str(await calls.rejection())
    assert "an operator has isolated the operation since 2023-11-14 22:13:20 UTC" in text
    assert "anna" not in text
    assert "moves" not in text


@virtual
async def test_a_cancelled_probe_lets_the_next_request_be_the_probe() -> None:
    calls = Calls()
    await calls.request(5, FAILURES[0])
    await asyncio.sleep(40)
    calls.seconds = 100
    probe = asyncio.create_task(calls.request())
    await asyncio.sleep(1)
    assert (await calls.rejection()).retry_after == 1
    probe.cancel()
    await asyncio.wait([probe])
    calls.seconds = 0
    await calls.request(2)
    assert calls.breaker.state == "closed"


@virtual
async def test_a_refused_request_among_failures_is_neither_a_failure_nor_a_success() -> None:
    calls = Calls()
    for _ in range(4):
        await calls.request(1, FAILURES[0])
        await calls.request(1, REFUSED)
    assert calls.breaker.state == "closed"
    await calls.request(1, FAILURES[0])
    assert calls.breaker.cause == "5 consecutive failures (unavailable)"


@virtual
async def test_a_probe_that_is_refused_lets_the_next_request_be_the_probe() -> None:
    calls = Calls()
    await calls.request(5, FAILURES[0])
    await asyncio.sleep(40)
    await calls.request(3, REFUSED)
    assert calls.breaker.info().state == "half-open"
    await calls.request(2)
    assert calls.breaker.info().state == "closed"


@virtual
async def test_each_attempt_of_a_retried_request_counts_once() -> None:
    calls = Calls(retries=3)
    for _ in range(20):
        await calls.request()  # each success deposits a part of a token for a retry
    await calls.request(1, of_service(Unavailable("refused", executed="no")))
    info = calls.breaker.info()
    assert (info.calls, info.failures) == (calls.sent, calls.sent - 20)
    assert calls.sent == 24


@virtual
async def test_a_slow_call_is_timed_from_its_send() -> None:
    calls = Calls(slow_call=2.0, slow_rate=1.0, min_calls=3)
    calls.seconds_before, calls.seconds = 60.0, 0.1  # it waits for a connection
    await calls.request(5)
    assert (calls.breaker.state, calls.breaker.info().slow) == ("closed", 0)
    calls.seconds_before, calls.seconds = 0.0, 2.5
    await calls.request(1, FAILURES[0])
    await calls.request(2)
    assert calls.breaker.state == "closed"  # the fast calls are older than the window
    await asyncio.sleep(10)
    await calls.request(3)
    assert (calls.breaker.cause or "").endswith("calls in 10 s took 2 s or longer")


@virtual
async def test_a_destination_without_a_breaker_has_no_layer_for_it() -> None:
    destinations = Destinations(
        {}, CallPolicy(retries=0, breaker=None, max_in_flight=None), timer=lambda: 0.0
    )
    assert call_policies(destinations.of(TYPE)) == []
    assert list(destinations.breakers) == []
