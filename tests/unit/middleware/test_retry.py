"""Retries of a request after an error of the called service."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from bus.errors import (
    Aborted,
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    Internal,
    NotFound,
    NotServed,
    ResourceExhausted,
    Unavailable,
    executed_of,
)
from bus.messaging.call_limits import CallLimits
from bus.messaging.envelope import Envelope
from bus.messaging.instruments import CALLS_REJECTED, CALLS_RETRIED, RETRY_BUDGET_TOKENS
from bus.messaging.ports.meter import Instrument
from bus.messaging.resends import on_resend
from bus.messaging.resilience.call_policy import CallPolicy
from bus.messaging.resilience.destinations import Destination, Destinations
from bus.middleware.retry import DEFAULT_RETRIES, retry
from bus.storage.memory.meter import MemoryMeter
from tests.unit import ledger  # noqa: F401 - declares the contracts of these types
from tests.unit.fakes import NOW, envelope, virtual

IDEMPOTENT, OTHER = "ledger.total.v1", "ledger.add.v1"
UNLIMITED = CallPolicy(retry_budget=None)


def of_service(error: BusError, **attributes: Any) -> BusError:
    """Return the error as a caller receives it from the service."""
    error.origin = "service"
    vars(error).update(attributes)
    return error


def refused(kind: type[BusError] = Unavailable, **values: Any) -> BusError:
    """Return an error of the service that no handler has begun."""
    return of_service(kind("refused", executed="no", **values))


def timed_out() -> BusError:
    return of_service(DeadlineExceeded("no reply", maybe_executed=True))


class Calls:
    """A client with the policy `retry` around a service that answers with given errors."""

    def __init__(
        self, type_: str = IDEMPOTENT, policy: CallPolicy = UNLIMITED, **arguments: Any
    ) -> None:
        loop = asyncio.get_running_loop()
        self.meter = MemoryMeter()
        self.destinations = Destinations(
            {"ledger": policy},
            CallPolicy(),
            timer=loop.time,
            clock=lambda: NOW + loop.time(),
            meter=self.meter,
        )
        self.destination: Destination = self.destinations.of(type_)
        self.sent: list[Envelope] = []
        self.times: list[float] = []
        self.errors: list[BusError] = []
        self._call = retry(self.destination, **arguments)(self._inner)

    async def _inner(self, sent: Envelope) -> Envelope:
        self.sent.append(sent)
        self.times.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return sent

    async def request(self, *errors: BusError, **attributes: Any) -> int:
        """Send a request, and return the number of attempts. The first ones fail with `errors`."""
        before = len(self.sent)
        self.errors = list(errors)
        await self.send(**attributes)
        return len(self.sent) - before

    async def send(self, **attributes: Any) -> None:
        """Send a request to a service that answers with `self.errors`."""
        await self._call(envelope(self.destination.type, **attributes))

    def counted(self, instrument: Instrument, *labels: str) -> float:
        """Return the value of a counter or gauge."""
        named = dict(zip(instrument.labels, labels, strict=True))
        series = self.meter.snapshot()
        return sum(
            each.value for each in series if (each.name, each.labels) == (instrument.name, named)
        )


def deadline(seconds: float) -> int:
    return int((NOW + asyncio.get_running_loop().time() + seconds) * 1000)


@pytest.mark.parametrize("kind", [Unavailable, ResourceExhausted, Aborted, DeadlineExceeded])
@pytest.mark.parametrize("type_", [IDEMPOTENT, OTHER], ids=["idempotent", "not idempotent"])
def test_a_request_that_no_handler_has_begun_is_sent_again_with_the_same_id(
    kind: type[BusError], type_: str
) -> None:
    @virtual
    async def run() -> None:
        calls = Calls(type_)
        assert await calls.request(refused(kind), refused(kind)) == 3
        assert len({sent.id for sent in calls.sent}) == 1
        assert calls.counted(CALLS_RETRIED, type_.removesuffix(".v1"), "1") == 2

    run()


@pytest.mark.parametrize(
    "error",
    [of_service(Unavailable("x")), of_service(ResourceExhausted("x")), timed_out()],
    ids=["unavailable", "exhausted", "time-out"],
)
def test_an_idempotent_request_that_a_handler_may_have_begun_is_sent_again(error: BusError) -> None:
    @virtual
    async def run() -> None:
        assert await Calls().request(error) == 2

    run()


@pytest.mark.parametrize(
    "error",
    [
        of_service(Unavailable("x")),
        of_service(Unavailable("x", executed="yes")),
        of_service(Unavailable("x", executed="no", maybe_executed=True)),
        timed_out(),
    ],
    ids=["unstated", "done", "in doubt", "time-out"],
)
def test_a_request_that_may_have_run_and_is_not_idempotent_is_not_sent_again(
    error: BusError,
) -> None:
    @virtual
    async def run() -> None:
        calls = Calls(OTHER)
        with pytest.raises(type(error)) as raised:
            await calls.request(error)
        assert raised.value is error
        assert len(calls.sent) == 1

    run()


@pytest.mark.parametrize(
    "error",
    [
        refused(Unavailable, retry_after=0),
        refused(Internal),
        refused(NotFound),
    ],
    ids=["do not retry", "internal", "not found"],
)
def test_an_error_that_the_service_does_not_let_retry_ends_the_call(error: BusError) -> None:
    @virtual
    async def run() -> None:
        vars(error)["retryable"] = not isinstance(error, Unavailable)
        calls = Calls()
        with pytest.raises(type(error)):
            await calls.request(error)
        assert len(calls.sent) == 1

    run()


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("breaker open", executed="no"),
        ResourceExhausted("bulkhead full", executed="no"),
        ConnectionLost("lost"),
        NotServed("no queue"),
    ],
    ids=["breaker", "bulkhead", "lost", "not served"],
)
def test_an_error_of_this_process_or_of_the_broker_is_not_retried(error: BusError) -> None:
    @virtual
    async def run() -> None:
        calls = Calls()
        with pytest.raises(type(error)):
            await calls.request(error)
        assert len(calls.sent) == 1

    run()


def unanswered() -> BusError:
    """Return the error of an attempt that timed out while the broker did not answer."""
    error = timed_out()
    error.origin, error.was_broker_silent = "broker", True
    return error


def interrupted() -> BusError:
    """Return the error of an attempt that timed out shortly after a trouble of the broker."""
    error = unanswered()
    error.was_broker_silent = False
    return error


@virtual
async def test_an_attempt_that_the_broker_cuts_off_is_repeated_without_a_token() -> None:
    calls = Calls(policy=CallPolicy(attempt_timeout=1, retry_budget=0.2))
    assert await calls.request(unanswered(), unanswered(), deadline=deadline(60)) == 3
    assert calls.counted(RETRY_BUDGET_TOKENS, "ledger") == 1
    assert calls.counted(CALLS_RETRIED, "ledger.total", "1") == 0


@pytest.mark.parametrize(
    ("type_", "retries", "attempts"), [(IDEMPOTENT, 1, 2), (IDEMPOTENT, 0, 1), (OTHER, 2, 1)]
)
def test_the_settings_and_the_contract_limit_the_repeats_after_a_silent_broker(
    type_: str, retries: int, attempts: int
) -> None:
    @virtual
    async def run() -> None:
        calls = Calls(type_, CallPolicy(retries=retries))
        with pytest.raises(DeadlineExceeded):
            await calls.request(*[unanswered() for _ in range(9)], deadline=deadline(60))
        assert len(calls.sent) == attempts

    run()


@virtual
async def test_a_silent_broker_takes_no_attempt_away_from_the_retries_by_default() -> None:
    calls = Calls(policy=CallPolicy(attempt_timeout=1, retry_budget=0.2))
    silent = [unanswered() for _ in range(20)]
    assert await calls.request(*silent, timed_out(), deadline=deadline(60)) == 22
    calls = Calls()
    with pytest.raises(Unavailable):
        await calls.request(*silent, *[refused() for _ in range(9)], deadline=deadline(60))
    assert len(calls.sent) == 20 + 1 + DEFAULT_RETRIES


@virtual
async def test_the_attempts_after_a_trouble_of_the_broker_count_as_retries() -> None:
    calls = Calls()
    with pytest.raises(DeadlineExceeded):
        await calls.request(*[interrupted() for _ in range(9)], deadline=deadline(60))
    assert len(calls.sent) == 1 + DEFAULT_RETRIES


@virtual
async def test_the_settings_limit_the_number_of_retries() -> None:
    for retries, attempts in ((0, 1), (1, 2), (5, 6), (None, 1 + DEFAULT_RETRIES)):
        calls = Calls(policy=CallPolicy(retries=retries, retry_budget=None))
        with pytest.raises(Unavailable):
            await calls.request(*[refused() for _ in range(100)])
        assert len(calls.sent) == attempts


@virtual
async def test_the_wait_that_the_service_asks_for_is_kept_exactly() -> None:
    calls = Calls()
    await calls.request(refused(retry_after=2.5), deadline=deadline(10))
    assert calls.times == [0, pytest.approx(2.5)]


@virtual
async def test_a_wait_that_does_not_fit_into_the_deadline_fails_the_call_at_once() -> None:
    calls = Calls()
    error = refused(retry_after=10)
    with pytest.raises(Unavailable) as raised:
        await calls.request(error, deadline=deadline(10))
    assert raised.value is error
    assert asyncio.get_running_loop().time() == 0


@virtual
async def test_the_waits_are_random_and_at_most_one_second() -> None:
    calls = Calls(policy=CallPolicy(retries=300, retry_budget=None))
    await calls.request(*[refused() for _ in range(300)])
    waits = [after - before for before, after in zip(calls.times, calls.times[1:], strict=False)]
    assert max(waits) <= 1
    assert len(set(waits)) > 250
    assert sum(waits[10:]) / len(waits[10:]) == pytest.approx(0.5, abs=0.15)


@virtual
async def test_no_retry_begins_after_the_deadline() -> None:
    calls = Calls(policy=CallPolicy(retries=1000, retry_budget=None))
    with pytest.raises(Unavailable):
        await calls.request(*[refused() for _ in range(1000)], deadline=deadline(3))
    assert calls.times[-1] < 3


# --- Doubt ---


@pytest.mark.parametrize(
    "last",
    [
        refused,
        lambda: ConnectionLost("not sent"),
        lambda: Unavailable("not sent"),
        lambda: NotServed("no queue"),
    ],
    ids=["refused", "lost", "not sent", "not served"],
)
def test_the_last_error_keeps_the_doubt_of_an_earlier_attempt(last: Any) -> None:
    @virtual
    async def run() -> None:
        error = last()
        if type(error) is Unavailable and error.origin == "local":
            error.origin = "broker"
        with pytest.raises(BusError) as raised:
            await Calls(policy=CallPolicy(retries=1)).request(timed_out(), error)
        assert executed_of(raised.value) == "maybe"
        assert raised.value.maybe_executed
        assert isinstance(raised.value, Unavailable)

    run()


@pytest.mark.parametrize("kind", [Unavailable, ResourceExhausted], ids=["breaker", "bulkhead"])
@pytest.mark.parametrize("first", [timed_out, refused], ids=["in doubt", "refused"])
def test_a_call_fails_with_the_error_of_the_service_if_a_policy_rejects_the_retry(
    first: Any, kind: type[BusError]
) -> None:
    @virtual
    async def run() -> None:
        error = first()
        expected = executed_of(error)
        with pytest.raises(BusError) as raised:
            await Calls().request(error, kind("rejected", executed="no"))
        assert raised.value is error
        assert executed_of(error) == expected

    run()


@virtual
async def test_a_retry_in_flight_when_the_bus_is_closed_leaves_its_doubt() -> None:
    closed = ConnectionLost("the bus was closed", maybe_executed=True)
    closed.origin = "local"
    with pytest.raises(BusError) as raised:
        await Calls(OTHER).request(refused(), closed)
    assert raised.value is closed
    assert executed_of(raised.value) == "maybe"


@virtual
async def test_a_failed_call_leaves_no_reference_cycle() -> None:
    calls = Calls(policy=CallPolicy(retries=1, retry_budget=None))
    gc.collect()
    gc.disable()
    try:
        calls.errors = [refused(), refused()]
        alive = [weakref.ref(each) for each in calls.errors]
        with pytest.raises(Unavailable):
            await calls.send()
        assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()


@virtual
async def test_the_outer_layers_learn_of_each_retry() -> None:
    seen: list[BusError] = []
    token = on_resend.set(seen.append)
    error = refused()
    try:
        await Calls().request(error)
    finally:
        on_resend.reset(token)
    assert seen == [error]


# --- The budget ---


async def outcomes(calls: Calls, errors: Sequence[type[BusError] | None]) -> list[int]:
    """Send one request for each item. Return the attempts of each."""
    attempts = []
    for kind in errors:
        before = len(calls.sent)
        failures = [] if kind is None else [refused(kind) for _ in range(9)]
        try:
            await calls.request(*failures)
        except BusError:
            calls.errors.clear()
        attempts.append(len(calls.sent) - before)
    return attempts


@virtual
async def test_a_failing_service_gets_only_the_first_retry_of_a_new_caller() -> None:
    calls = Calls(policy=CallPolicy())
    assert await outcomes(calls, [Unavailable] * 5) == [2, 1, 1, 1, 1]
    assert calls.counted(CALLS_REJECTED, "ledger.total", "1", "budget") == 5


@virtual
async def test_a_call_without_a_token_fails_with_the_error_of_the_service() -> None:
    calls = Calls(policy=CallPolicy())
    await outcomes(calls, [Unavailable])
    error = refused()
    with pytest.raises(Unavailable) as raised:
        await calls.request(error)
    assert raised.value is error


@virtual
async def test_each_call_that_succeeds_refills_the_budget_of_its_service() -> None:
    calls = Calls(policy=CallPolicy())
    assert await outcomes(calls, [Unavailable, *[None] * 5, Unavailable, Unavailable]) == [
        *(2, 1, 1, 1, 1, 1),
        *(2, 1),
    ]


@virtual
async def test_an_answer_such_as_not_found_refills_the_budget_too() -> None:
    calls = Calls(policy=CallPolicy())
    assert await outcomes(calls, [Unavailable, *[NotFound] * 5, Unavailable]) == [2, *[1] * 5, 2]
    internal = Calls(policy=CallPolicy())
    assert await outcomes(internal, [Unavailable, *[Internal] * 5, Unavailable]) == [2, *[1] * 6]


@virtual
async def test_all_operations_of_a_service_have_one_budget() -> None:
    calls = Calls(policy=CallPolicy())
    other = calls.destinations.of(OTHER)
    assert other.budget is calls.destination.budget
    assert calls.destinations.of("office.open.v1").budget is not other.budget
    calls.destinations.report()
    assert calls.counted(RETRY_BUDGET_TOKENS, "ledger") == 1


@virtual
async def test_an_error_of_the_broker_spends_no_token() -> None:
    calls = Calls(policy=CallPolicy())
    for _ in range(10):
        with pytest.raises(ConnectionLost):
            await calls.request(ConnectionLost("lost", maybe_executed=True))
    assert calls.destination.budget is not None
    assert calls.destination.budget.tokens == 1


# --- The time of an attempt ---


@virtual
async def test_each_attempt_has_the_time_of_the_settings_and_its_number() -> None:
    calls = Calls(policy=CallPolicy(attempt_timeout=0.5, retry_budget=None))
    limits = CallLimits(setting="BUS_REQUEST_TIMEOUT", retries=7)
    await calls.request(timed_out(), timed_out(), limits=limits)
    assert [
        (sent.limits.attempt_timeout, sent.limits.attempt, sent.limits.setting, sent.limits.retries)
        for sent in calls.sent
        if sent.limits is not None
    ] == [(0.5, number, "BUS_REQUEST_TIMEOUT", 7) for number in (1, 2, 3)]


@virtual
async def test_a_service_without_an_attempt_timeout_gets_the_request_unchanged() -> None:
    calls = Calls()
    await calls.request()
    assert calls.sent[0].limits is None
