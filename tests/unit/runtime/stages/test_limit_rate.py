"""The rate limit for each calling service."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bus import RateLimit, Router
from bus.errors import ContractError, ResourceExhausted, Unauthenticated, executed_of
from bus.messaging.resilience.call_policy import DEFAULT_POLICY
from bus.messaging.resilience.destinations import Destinations
from bus.messaging.resilience.rates import Rates
from bus.messaging.timers import loop_time
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound import compose_inbound
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.stages.limit_rate import MAX_CALLERS, limit_rate
from bus.testing import MemoryBuses
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, envelope, state_of, virtual
from tests.unit.ledger import GetTotal, Total
from tests.unit.runtime.in_memory import in_memory


def router_of(rate: RateLimit | None) -> Router:
    router = Router("ledger")

    @router.request(GetTotal, rate=rate)
    async def get(_request: GetTotal) -> Total:
        return Total(total=1)

    return router


def state(rate: RateLimit | None, **attributes: Any) -> EndpointState:
    endpoint = state_of(router_of(rate), FakeTransport(), **attributes)
    destinations = Destinations({}, DEFAULT_POLICY, timer=loop_time, clock=lambda: NOW)
    runtime = replace(endpoint.runtime, destinations=destinations)
    return EndpointState(
        endpoint=endpoint.endpoint,
        spec=endpoint.spec,
        runtime=runtime,
        guard=endpoint.guard,
        candidates=endpoint.candidates,
    )


def request(source: str, **attributes: Any) -> InboundMessage:
    known = {"queue": "ledger.requests.total.v1", **attributes}
    return InboundMessage(FakeDelivery(envelope("ledger.total.v1", source=source, **known)))


async def handled(_message: InboundMessage) -> HandlingResult:
    return HandlingResult()


@virtual
async def test_an_endpoint_without_a_rate_limit_has_no_stage() -> None:
    assert limit_rate(state(None))(handled) is handled


@virtual
async def test_a_caller_above_its_rate_is_refused_until_it_has_a_token_again() -> None:
    stage = limit_rate(state(RateLimit(4, per=2.0, burst=2)))(handled)
    errors = [(await stage(request("shop"))).error for _ in range(3)]
    assert errors[:2] == [None, None]
    refused = errors[2]
    assert isinstance(refused, ResourceExhausted)
    assert (refused.retry_after, executed_of(refused)) == (0.5, "no")
    assert str(refused) == (
        "ledger.total.v1: shop has sent more than 4 requests in 2 s. Try again in 0.5 s."
    )
    await asyncio.sleep(0.5)
    assert (await stage(request("shop"))).error is None


@virtual
async def test_a_caller_does_not_use_the_tokens_of_another_one() -> None:
    stage = limit_rate(state(RateLimit(1)))(handled)
    results = [(await stage(request(name))).error is None for name in ("a", "b", "a", "b")]
    assert results == [True, True, False, False]


@virtual
async def test_a_forged_request_uses_no_token_of_the_service_whose_name_it_has() -> None:
    class ByProof:
        """Guard that admits only genuine messages."""

        def authorize(self, message: Any) -> Unauthenticated | None:
            return None if message.authorization == "genuine" else Unauthenticated("forged")

        def may_wait(self, _message: Any, _error: Any) -> bool:
            return False

    guard: Any = ByProof()
    stage = compose_inbound(state(RateLimit(1), gate=guard), handled)
    for number in range(5):
        forged = await stage(request("shop", id=f"f-{number}", authorization="forged"))
        assert isinstance(forged.error, Unauthenticated)
    genuine = await stage(request("shop", id="g", authorization="genuine"))
    assert genuine.error is None


def test_the_memory_for_invented_names_is_bounded() -> None:
    rates = Rates(1, burst=1, max_keys=MAX_CALLERS, timer=lambda: 0.0)
    assert sum(rates.take(number) for number in range(2 * MAX_CALLERS)) == MAX_CALLERS
    assert (len(rates), rates.wait("another")) == (MAX_CALLERS, 1.0)


@in_memory
async def test_a_caller_learns_from_the_reply_when_it_may_try_again(buses: MemoryBuses) -> None:
    ledger, client = await buses.bus("ledger"), await buses.bus("client")
    await buses.serve(ledger, router_of(RateLimit(1, per=10)))
    assert await client.request(GetTotal(), timeout=1) == Total(total=1)
    with pytest.raises(ResourceExhausted) as refused:
        await client.request(GetTotal(), timeout=1)
    assert executed_of(refused.value) == "no"
    assert 9 < (refused.value.retry_after or 0) <= 10
    shed = [each for each in ledger.report.stats().series if each.name == "messages.shed"]
    assert [(each.labels["caller"], each.labels["reason"]) for each in shed] == [("client", "rate")]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ((0,), "requests must be a number above 0"),
        ((float("inf"),), "requests must be a number above 0"),
        (("9",), "requests must be a number above 0"),
        ((1e-300,), "one request in more than 86400 s"),
        ((5e-324, 3e9), "one request in more than 86400 s"),
        ((1, 86401), "one request in more than 86400 s"),
        ((1, -1), "per must be a number of seconds"),
        ((1, 1, 0), "burst must be a whole number from 1"),
    ],
)
def test_a_rate_limit_refuses_values_that_are_out_of_range(
    values: tuple[Any, ...], problem: str
) -> None:
    with pytest.raises(ContractError, match=problem):
        RateLimit(*values)


def test_a_handler_refuses_a_rate_that_is_not_a_rate_limit() -> None:
    wrong: Any = 100
    with pytest.raises(ContractError, match="rate must be a RateLimit, not a value of type int"):
        router_of(wrong)
