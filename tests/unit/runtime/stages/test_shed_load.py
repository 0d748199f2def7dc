"""The stage that refuses requests while no slot is free, on virtual time."""

import asyncio
import logging
from typing import Any

import pytest

from bus.errors import BusError, NotFound, ResourceExhausted, executed_of
from bus.messaging.resilience.adaptive_limit import AdaptiveLimit
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.router import Router
from bus.runtime.stages.adapt_concurrency import adapt_concurrency
from bus.runtime.stages.limit_concurrency import limit_concurrency
from bus.runtime.stages.shed_load import shed_load
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, envelope, state_of, virtual
from tests.unit.ledger import Add, BooksClosed, CloseBooks, GetTotal, Total

DONE = HandlingResult()


class Ledger:
    """An endpoint with one slot whose handler takes a second, on the clock of the loop."""

    def __init__(
        self,
        model: Any = GetTotal,
        *,
        error: BusError | None = None,
        skew: float = 0.0,
        concurrency: int | AdaptiveLimit = 1,
    ) -> None:
        router = Router("ledger")

        async def work(_: Any) -> Any:
            return Total(total=1)

        registers: dict[Any, Any] = {CloseBooks: router.job, BooksClosed: router.event}
        registers.get(model, router.request)(model, concurrency=concurrency)(work)
        self.state: EndpointState = state_of(router, FakeTransport(), clock=self.clock)
        self.type = next(iter(router.endpoints.values())).contract.type
        self.handled: list[str] = []
        self.results: dict[str, HandlingResult] = {}
        self.result = HandlingResult(error=error)
        self.skew = skew
        inner = shed_load(self.state)(adapt_concurrency(self.state)(self.handle))
        self._call = limit_concurrency(self.state)(inner)
        self._number = 0

    def clock(self) -> float:
        return NOW + asyncio.get_running_loop().time()

    async def handle(self, message: InboundMessage) -> HandlingResult:
        self.handled.append(message.envelope.id)
        await asyncio.sleep(1)
        return self.result

    async def receive(
        self, *, age: float = 0.0, timeout: float = 10.0, id_: str = "", **attributes: Any
    ) -> HandlingResult:
        """Handle a request that was sent some seconds ago, and release its slot."""
        self._number += 1
        received = int(self.clock() * 1000)
        sent = received - int((age + self.skew) * 1000)
        known = {
            "id": id_ or str(self._number),
            "received": received,
            "expiration": int(timeout * 1000),
            "deadline": sent + int(timeout * 1000),
            "reply_to": "office.replies.1",
        }
        message = InboundMessage(FakeDelivery(envelope(self.type, **{**known, **attributes})))
        result = await self._call(message)
        self.state.in_flight.finish(message)
        return result

    async def warm_up(self) -> None:
        """Handle ten requests that do not wait."""
        for _ in range(10):
            await asyncio.sleep(1)
            assert await self.receive() is self.result

    async def overload(self, *, age: float, number: int = 3, **attributes: Any) -> None:
        """Handle a request that does not wait, and then others from a queue of this age."""
        attributes = {"timeout": 10.0, **attributes}
        await asyncio.gather(
            self.receive(**attributes),
            *(self.receive(age=age, **attributes) for _ in range(number)),
        )


def error_of(result: HandlingResult) -> ResourceExhausted:
    assert isinstance(result.error, ResourceExhausted)
    return result.error


@virtual
async def test_a_request_that_cannot_be_answered_in_time_is_refused_without_a_run() -> None:
    ledger = Ledger()
    await ledger.warm_up()
    first = asyncio.create_task(ledger.receive(age=0.0))
    await asyncio.sleep(0)
    hopeless = await ledger.receive(age=8.5, id_="hopeless")  # it waits for one more second
    assert await first is ledger.result
    error = error_of(hopeless)
    assert "hopeless" not in ledger.handled
    assert not hopeless.has_run
    assert (executed_of(error), error.retryable, error.retry_after) == ("no", True, 9.5)
    assert str(error) == (
        "ledger.total.v1: the service is overloaded. The request waited for 9.5 s, and too little "
        "time remained for the handler. Try again after 9.5 s, or start more workers."
    )


@virtual
async def test_a_hopeless_request_runs_if_a_slot_is_free() -> None:
    ledger = Ledger()
    await ledger.warm_up()
    await asyncio.sleep(1)
    assert await ledger.receive(age=9.9) is ledger.result


@virtual
async def test_in_an_old_queue_the_lowest_criticality_is_refused_first() -> None:
    ledger = Ledger()
    await ledger.warm_up()
    sheddable: Any = {"headers": {"criticality": "sheddable"}}
    await ledger.overload(age=1.0)
    refused, handled = await asyncio.gather(
        ledger.receive(age=3.0, id_="low", **sheddable), ledger.receive(age=3.0, id_="usual")
    )
    assert handled is ledger.result
    error = error_of(refused)
    assert "requests of this criticality are refused now" in str(error)
    assert "low" not in ledger.handled


@virtual
async def test_a_header_cannot_raise_the_criticality() -> None:
    ledger = Ledger()
    await ledger.warm_up()
    urgent: Any = {"headers": {"criticality": "critical_plus"}, "timeout": 20.0}
    await ledger.overload(age=14.0, **urgent)
    assert "requests of this criticality" in str(error_of(await ledger.receive(age=17.0, **urgent)))


@virtual
@pytest.mark.parametrize("skew", [-20.0, 20.0])
async def test_clocks_that_differ_refuse_nothing(skew: float) -> None:
    ledger = Ledger(skew=skew)
    await ledger.warm_up()
    await ledger.overload(age=0.0, number=3, headers={"criticality": "sheddable_plus"})
    assert len(ledger.handled) == 14


@virtual
async def test_ten_thousand_requests_of_a_normal_load_are_all_handled() -> None:
    ledger = Ledger()
    for _ in range(5_000):
        pair = asyncio.gather(
            ledger.receive(), ledger.receive(headers={"criticality": "sheddable"})
        )
        await asyncio.sleep(2.2)  # the handler is busy for 2 s
        assert [each.error for each in await pair] == [None, None]
    assert len(ledger.handled) == 10_000


@virtual
async def test_jobs_and_events_are_never_refused() -> None:
    for model in (CloseBooks, BooksClosed):
        ledger = Ledger(model)
        assert shed_load(ledger.state)(ledger.handle) == ledger.handle


@virtual
async def test_a_request_without_an_expiration_is_never_refused() -> None:
    ledger = Ledger()
    await ledger.warm_up()
    await ledger.overload(age=5.0, expiration=None, deadline=None)
    assert len(ledger.handled) == 14


@virtual
async def test_failed_requests_do_not_tell_how_long_the_handler_takes() -> None:
    ledger = Ledger(error=NotFound("x"))
    await ledger.warm_up()
    first = asyncio.create_task(ledger.receive())
    await asyncio.sleep(0)
    assert await ledger.receive(age=8.5) is ledger.result
    await first


@virtual
async def test_a_request_that_must_not_run_twice_is_refused_before_its_ack() -> None:
    ledger = Ledger(Add)
    await ledger.warm_up()
    first = asyncio.create_task(ledger.receive())
    await asyncio.sleep(0)
    error_of(await ledger.receive(age=8.5))
    await first


@virtual
async def test_the_log_has_one_line_a_minute_with_the_number_of_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "bus.activator")
    ledger = Ledger()
    await ledger.warm_up()

    async def refuse(number: int) -> None:
        results = await asyncio.gather(
            ledger.receive(timeout=30), *(ledger.receive(age=9.0) for _ in range(number))
        )
        assert all(error_of(each) for each in results[1:])

    await refuse(40)
    await refuse(1)
    await asyncio.sleep(60)
    await refuse(1)
    text = "ledger.total.v1 is overloaded (requests refused since the last such line: {}). "
    assert [each.getMessage() for each in caplog.records] == [
        f"{text.format(number)}Start more workers." for number in (1, 41)
    ]


@virtual
@pytest.mark.parametrize(
    "concurrency", [4, AdaptiveLimit(max=64, start=4)], ids=["fixed", "adaptive"]
)
async def test_a_prefetch_below_the_adaptive_limit_refuses_as_a_fixed_limit(
    concurrency: int | AdaptiveLimit,
) -> None:
    ledger, loop = Ledger(concurrency=concurrency), asyncio.get_running_loop()
    await ledger.warm_up()
    queue: asyncio.Queue[float] = asyncio.Queue()  # the time at which each request was sent
    answered: list[float] = []
    refused: list[ResourceExhausted] = []

    async def deliver() -> None:
        """Deliver a request when an earlier one is settled, as a broker with a prefetch does."""
        while True:
            sent = await queue.get()
            age = loop.time() - sent
            if age > 5:
                continue  # it has expired
            result = await ledger.receive(age=age, timeout=5)
            if result.error is not None:
                refused.append(error_of(result))
            elif loop.time() - sent <= 5:
                answered.append(sent)

    prefetch = [asyncio.create_task(deliver()) for _ in range(4)]
    for _ in range(300):  # 10 requests a second, and the handler can answer 4
        queue.put_nowait(loop.time())
        await asyncio.sleep(0.1)
    for task in prefetch:
        task.cancel()
    assert len(answered) > 0.9 * 30 * 4
    assert len(refused) > 100


@virtual
async def test_a_setting_turns_load_shedding_off() -> None:
    ledger = Ledger()
    settings = ledger.state.runtime.settings.model_copy(update={"load_shedding": "off"})
    object.__setattr__(ledger.state.runtime, "settings", settings)
    assert shed_load(ledger.state)(ledger.handle) == ledger.handle
