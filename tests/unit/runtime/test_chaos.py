"""Chaos experiments on buses in memory: each fault looks like a fault of the service."""

import asyncio
import logging
from typing import Any

import pytest

from bus import (
    Bus,
    ConfigurationError,
    DeadlineExceeded,
    NotFound,
    RateLimit,
    Router,
    Unavailable,
)
from bus.contracts.contract import Event, Job, Message, Request, contract
from bus.messaging.chaos_info import ChaosInfo
from bus.messaging.control import GetChaos, GetStats, Target
from bus.messaging.instruments import CHAOS_FAULTS
from bus.messaging.orders import OrderResult, StartChaos, StopChaos
from bus.messaging.resilience.chaos import Chaos
from bus.messaging.resilience.chaos_grammar import parse_chaos
from bus.runtime.inbound import INBOUND
from bus.runtime.stages.authenticate import authenticate
from bus.runtime.stages.deduplicate import deduplicate
from bus.runtime.stages.inject_delivery_faults import inject_delivery_faults
from bus.settings import load_settings
from bus.testing import MemoryBuses
from tests.polling import until
from tests.unit.runtime.in_memory import in_memory


class Fee(Message):
    amount: int


@contract("toll.fee", version=1, idempotent=True)
class GetFee(Request[Fee]):
    axles: int = 2


@contract("toll.pay", version=1)
class Pay(Request[Fee]):
    axles: int = 2


@contract("toll.bill", version=1)
class Bill(Job[Fee]):
    month: int = 1


@contract("toll.opened", version=1)
class Opened(Event):
    lane: int = 1


@contract("toll.token", version=1)
class GetToken(Request[Fee]):
    axles: int = 2


class Toll:
    """The service `toll`, which counts the calls of its handlers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.router = Router("toll")
        self.router.request(GetFee)(self._fee)
        self.router.request(Pay)(self._fee)
        self.router.job(Bill)(self._fee)
        self.router.event(Opened)(self._opened)

    async def _fee(self, message: GetFee | Pay | Bill) -> Fee:
        self.calls.append(type(message).__name__)
        return Fee(amount=7)

    async def token(self, _message: GetToken) -> Fee:
        return Fee(amount=1)

    async def _opened(self, message: Opened) -> None:
        self.calls.append(type(message).__name__)


async def toll_with(buses: MemoryBuses, chaos: str | None) -> tuple[Toll, Bus, Bus]:
    """Return the toll with an experiment, its bus, and the bus of a caller."""
    toll, served, caller = Toll(), await buses.bus("toll", chaos=chaos), await buses.bus("car")
    await buses.serve(served, toll.router)
    return toll, served, caller


def faults(bus: Bus) -> dict[tuple[str, str], float]:
    return {
        (each.labels["operation"], each.labels["fault"]): each.value
        for each in bus.report.stats().series
        if each.name == CHAOS_FAULTS.name
    }


# --- The four faults ---


@in_memory
async def test_a_latency_delays_the_handler(buses: MemoryBuses) -> None:
    _, served, car = await toll_with(buses, "toll.fee: latency=3s")
    began = buses.clock()
    assert (await car.request(GetFee(), timeout=5)).amount == 7
    assert 3 <= buses.clock() - began < 3.5
    assert faults(served) == {("toll.fee", "latency"): 1}
    began = buses.clock()
    await car.request(Pay(), timeout=5)
    assert buses.clock() - began < 0.5


@in_memory
async def test_a_latency_beyond_the_deadline_ends_as_a_slow_handler_does(
    buses: MemoryBuses,
) -> None:
    toll, _, car = await toll_with(buses, "*: latency=60s")
    began = buses.clock()
    with pytest.raises(DeadlineExceeded):
        await car.request(Pay(), timeout=2)
    await buses.settled()
    assert (toll.calls, buses.clock() - began < 3) == ([], True)


@in_memory
async def test_a_latency_ends_with_its_experiment(buses: MemoryBuses) -> None:
    toll, _, car = await toll_with(buses, "*: latency=600s; for=4s")
    began = buses.clock()
    assert (await (await car.submit(Bill())).result(timeout=60)).amount == 7
    assert buses.clock() - began < 4.5
    assert toll.calls == ["Bill"]


@in_memory
async def test_a_latency_ends_when_an_operator_stops_the_experiment(buses: MemoryBuses) -> None:
    toll, served, car = await toll_with(buses, "*: latency=600s")
    began = buses.clock()
    handles = [await car.submit(Bill(month=month)) for month in (1, 2)]
    await asyncio.sleep(1)
    assert toll.calls == []
    served._chaos.stop("a test")
    for handle in handles:
        await handle.result(timeout=60)
    assert buses.clock() - began < 1.5


@in_memory
async def test_a_message_with_several_latencies_waits_for_the_longest_one(
    buses: MemoryBuses,
) -> None:
    _, served, car = await toll_with(buses, "toll.fee: latency=2s, latency=3s; *: latency=1s")
    began = buses.clock()
    await car.request(GetFee(), timeout=10)
    assert 3 <= buses.clock() - began < 3.5
    assert faults(served) == {("toll.fee", "latency"): 1}


@in_memory
async def test_an_error_is_the_reply_of_the_service(buses: MemoryBuses) -> None:
    toll, served, car = await toll_with(buses, "toll.pay: error=unavailable")
    with pytest.raises(Unavailable, match="a chaos experiment injected this error") as caught:
        await car.request(Pay(), timeout=2)
    assert (type(caught.value), caught.value.origin) == (Unavailable, "service")
    assert toll.calls == []
    (handler,) = (each for each in served.report.stats().handlers if each.operation == "toll.pay")
    assert handler.last_error is not None
    assert handler.last_error.code == "unavailable"


@in_memory
async def test_a_dropped_reply_belongs_to_a_request_that_was_handled(buses: MemoryBuses) -> None:
    toll, served, car = await toll_with(buses, "toll.pay: drop-reply")
    with pytest.raises(DeadlineExceeded) as caught:
        await car.request(Pay(), timeout=2)
    assert caught.value.maybe_executed
    assert toll.calls == ["Pay"]
    await buses.settled()
    assert faults(served) == {("toll.pay", "drop-reply"): 1}


@in_memory
async def test_no_reply_to_a_job_or_event_is_dropped(buses: MemoryBuses) -> None:
    toll, served, car = await toll_with(buses, "*: drop-reply")
    assert (await (await car.submit(Bill())).result(timeout=2)).amount == 7
    await served.publish(Opened())
    await buses.settled()
    assert toll.calls == ["Bill", "Opened"]
    assert faults(served) == {}


@in_memory
async def test_a_duplicate_is_not_handled_twice_because_it_is_deduplicated(
    buses: MemoryBuses,
) -> None:
    toll, served, car = await toll_with(buses, "*: duplicate")
    assert (await car.request(GetFee(), timeout=2)).amount == 7
    assert (await (await car.submit(Bill())).result(timeout=2)).amount == 7
    await served.publish(Opened())
    await buses.settled()
    assert toll.calls == ["GetFee", "Bill", "Opened"]
    assert sum(faults(served).values()) == 3
    skipped = [s.value for s in served.report.stats().series if s.name == "messages.duplicates"]
    assert sum(skipped) == 3


@in_memory
async def test_a_duplicate_of_a_failed_job_reaches_the_handler_again(buses: MemoryBuses) -> None:
    attempts: list[int] = []
    router = Router("toll")

    @router.job(Bill)
    async def bill(job: Bill) -> Fee:
        attempts.append(job.month)
        if len(attempts) == 1:
            raise Unavailable("the printer is out of paper")
        return Fee(amount=7)

    served, car = await buses.bus("toll", chaos="*: duplicate"), await buses.bus("car")
    await buses.serve(served, router)
    assert (await (await car.submit(Bill())).result(timeout=2)).amount == 7
    assert attempts == [1, 1]


@in_memory
async def test_a_duplicate_that_is_refused_does_not_replace_the_reply_of_the_first(
    buses: MemoryBuses,
) -> None:
    runs: list[int] = []
    router = Router("toll")

    @router.request(GetFee, rate=RateLimit(1, per=3600))
    async def fee(request: GetFee) -> Fee:
        runs.append(request.axles)
        if request.axles == 13:
            raise NotFound("no such fee")
        return Fee(amount=7)

    served = await buses.bus("toll", chaos="*: duplicate")
    cars = [await buses.bus("car"), await buses.bus("van")]
    await buses.serve(served, router)
    assert (await cars[0].request(GetFee(), timeout=2)).amount == 7
    with pytest.raises(NotFound):
        await cars[1].request(GetFee(axles=13), timeout=2)
    assert runs == [2, 13]


@in_memory
async def test_a_request_that_runs_at_most_once_is_never_repeated(buses: MemoryBuses) -> None:
    toll, served, car = await toll_with(buses, "*: duplicate")
    assert (await car.request(Pay(), timeout=2)).amount == 7
    assert (toll.calls, faults(served)) == (["Pay"], {})


@in_memory
async def test_no_accepted_job_or_event_is_lost_in_an_experiment(buses: MemoryBuses) -> None:
    plan = "*: latency=10ms@20%, error=unavailable@30%, drop-reply@50%, duplicate@30%; seed=7"
    toll, served, car = await toll_with(buses, plan)
    handles = [await car.submit(Bill(month=each)) for each in range(40)]
    for lane in range(40):
        await served.publish(Opened(lane=lane))
    await buses.settled(retries=True)
    lost = len(buses.dead(Bill)) + len(buses.dead(Opened))
    assert toll.calls.count("Bill") + toll.calls.count("Opened") + lost == 80
    assert toll.calls.count("Bill") == len(handles) - len(buses.dead(Bill))


# --- Shares, seeds and ends ---


def test_a_share_and_a_seed_select_the_same_messages_each_time() -> None:
    def drawn(seed: int) -> list[bool]:
        chaos = Chaos("toll", clock=lambda: 0.0)
        chaos.start(parse_chaos(f"*: error=unavailable@25%; seed={seed}"), by="ida", reason="test")
        return [chaos.error("toll.pay.v1") is not None for _ in range(4000)]

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert 900 < sum(first) < 1100


def test_without_an_experiment_no_random_number_is_drawn() -> None:
    chaos = Chaos("toll", clock=lambda: 0.0)
    before = chaos._random.getstate()
    assert (chaos.experiment, chaos.latency("a.b.v1"), chaos.error("a.b.v1")) == (None, 0, None)
    assert not chaos.drops_reply("a.b.v1")
    assert not chaos.duplicates("a.b.v1")
    assert chaos._random.getstate() == before


def test_faults_of_deliveries_are_between_authentication_and_deduplication() -> None:
    places = [INBOUND.index(each) for each in (authenticate, inject_delivery_faults, deduplicate)]
    assert places == sorted(places)


@in_memory
async def test_an_experiment_is_logged_and_ends_by_itself(buses: MemoryBuses) -> None:
    caught: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = caught.append  # type: ignore[method-assign,assignment]
    logging.getLogger("bus.chaos").addHandler(handler)
    try:
        _, _, car = await toll_with(buses, "toll.pay: error=unavailable; for=30s; seed=5")
        with pytest.raises(Unavailable):
            await car.request(Pay(), timeout=2)
        await asyncio.sleep(30)
        assert (await car.request(Pay(), timeout=2)).amount == 7
    finally:
        logging.getLogger("bus.chaos").removeHandler(handler)
    first, last = (record.getMessage() for record in caught)
    assert first.startswith("toll: chaos begins, by BUS_CHAOS")
    assert first.endswith("with seed=5: toll.pay: error=unavailable")
    assert last == "toll: chaos ends, because its time is over. Injected faults: error 1"
    assert {record.levelno for record in caught} == {logging.WARNING}


@in_memory
async def test_without_an_end_an_experiment_lasts_ten_minutes(buses: MemoryBuses) -> None:
    _, served, _ = await toll_with(buses, "toll.pay: error=unavailable")
    info = served.report.chaos().chaos
    assert info is not None
    assert info.until - info.since == 600_000
    await asyncio.sleep(599)
    assert served.report.chaos().chaos is not None
    await asyncio.sleep(2)
    assert served.report.chaos().chaos is None


# --- BUS_CHAOS ---


def test_a_wrong_plan_fails_at_the_start_with_the_name_and_the_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("BUS_CHAOS", "toll.pay: eror=unavailable")
    with pytest.raises(
        ConfigurationError, match="BUS_CHAOS: character 11: a fault must stand here"
    ):
        load_settings()


def test_with_authentication_the_variable_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_AUTH", "on")
    monkeypatch.setenv("BUS_CHAOS", "toll.pay: error=unavailable")
    with pytest.raises(ConfigurationError, match="BUS_CHAOS: must not be set with BUS_AUTH=on"):
        load_settings()


@in_memory
async def test_an_own_operation_that_is_not_served_fails_at_the_start(buses: MemoryBuses) -> None:
    bus = await buses.bus("toll", chaos="toll.fees: duplicate")
    with pytest.raises(ConfigurationError, match=r"toll does not serve toll\.fees; did you mean"):
        await buses.serve(bus, Toll().router)


async def test_a_process_that_only_sends_starts_no_experiment() -> None:
    async with MemoryBuses() as buses:
        assert (await buses.bus("car", chaos="*: duplicate")).report.chaos().chaos is None


@in_memory
async def test_a_second_router_does_not_start_the_experiment_again(buses: MemoryBuses) -> None:
    toll, served, _ = await toll_with(buses, "toll.pay: duplicate; for=30s")
    await asyncio.sleep(31)
    other = Router("toll")
    other.request(GetToken)(toll.token)
    await buses.serve(served, other)
    assert served.report.chaos().chaos is None


async def test_a_plan_for_other_services_only_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryBuses() as buses:
        bus = await buses.bus("toll", chaos="garage.open: duplicate")
        with caplog.at_level(logging.WARNING, "bus.chaos"):
            await buses.serve(bus, Toll().router)
        assert "BUS_CHAOS names no operation that this service handles" in caplog.text


# --- Orders ---


async def order(bus: Bus, kind: type[Any], seconds: float = 60, **fields: Any) -> OrderResult:
    now = bus._clock()
    order = kind(reason="game day", until=int((now + seconds) * 1000), operator="ida", **fields)
    (answer,) = await bus.discovery.ask(order, Target("toll"), window=1, expected=1)
    record: OrderResult = answer.record
    return record


@in_memory
async def test_an_order_starts_an_experiment_and_another_one_stops_it(buses: MemoryBuses) -> None:
    _, served, car = await toll_with(buses, None)
    result = await order(car, StartChaos, plan="toll.pay: error=unavailable; seed=3")
    assert (result.outcome, result.changed) == ("applied", 1)
    with pytest.raises(Unavailable):
        await car.request(Pay(), timeout=2)
    (answer,) = await car.discovery.ask(GetChaos(), Target("toll"), expected=1)
    info = answer.record.chaos
    assert isinstance(info, ChaosInfo)
    assert (info.ordered_by, info.reason, info.seed, info.faults) == (
        "ida",
        "game day",
        3,
        {"error": 1},
    )
    assert info.rules == ("toll.pay: error=unavailable",)
    assert (await order(car, StopChaos)).outcome == "applied"
    assert (await car.request(Pay(), timeout=2)).amount == 7
    assert (await order(car, StopChaos)).why == "not-found"
    assert served.report.chaos().chaos is None


@in_memory
async def test_an_ordered_experiment_ends_with_the_order(buses: MemoryBuses) -> None:
    _, served, car = await toll_with(buses, None)
    await order(car, StartChaos, seconds=20, plan="*: error=unavailable; for=1h")
    await asyncio.sleep(19)
    assert served.report.chaos().chaos is not None
    await asyncio.sleep(2)
    assert served.report.chaos().chaos is None


@pytest.mark.parametrize(
    ("plan", "seconds", "why"),
    [
        ("garage.open: duplicate", 60, "not-found"),
        ("toll.pay: explode", 60, "not-understood"),
        ("toll.pay: duplicate", 3700, "too-long"),
        ("toll.pay: duplicate", -1, "ended"),
    ],
)
async def test_an_order_that_cannot_be_obeyed_is_answered_with_the_reason(
    plan: str, seconds: float, why: str
) -> None:
    async with MemoryBuses() as buses:
        _, served, car = await toll_with(buses, None)
        result = await order(car, StartChaos, seconds, plan=plan)
        assert (result.outcome, result.why) == ("ignored", why)
        assert served.report.chaos().chaos is None


@in_memory
async def test_the_statistics_show_a_running_experiment(buses: MemoryBuses) -> None:
    _, _, car = await toll_with(buses, "toll.fee: duplicate@2%, error=internal@1%")
    (answer,) = await car.discovery.ask(GetStats(), Target("toll"), expected=1)
    (line,) = answer.record.chaos
    assert line.startswith("toll.fee: duplicate@2%, error=internal@1% (by BUS_CHAOS, until ")
    assert line.endswith(" UTC)")


async def test_the_end_of_a_bus_ends_its_experiment() -> None:
    async with MemoryBuses() as buses:
        _, served, _ = await toll_with(buses, "*: duplicate")
        assert served.report.chaos().chaos is not None
    await until(lambda: served.report.chaos().chaos is None, "the end of the experiment")
