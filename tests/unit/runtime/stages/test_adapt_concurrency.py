"""The stage that reports the durations of a handler to its adaptive limit."""

import asyncio
from typing import Any

import pytest

from bus.errors import DeadlineExceeded, NotFound, ResourceExhausted
from bus.messaging.resilience.adaptive_limit import AdaptiveLimit
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import HandlingResult, InboundMessage
from bus.runtime.router import Router
from bus.runtime.stages.adapt_concurrency import adapt_concurrency
from tests.unit.fakes import FakeDelivery, FakeTransport, envelope, state_of, virtual
from tests.unit.ledger import Add, GetTotal, Total


def state(concurrency: int | AdaptiveLimit, model: Any = GetTotal) -> EndpointState:
    router = Router("ledger")

    @router.request(model, concurrency=concurrency)
    async def total(_: Any) -> Total:
        return Total(total=1)

    return state_of(router, FakeTransport())


async def run(endpoint: EndpointState, result: HandlingResult) -> None:
    """Pass 200 messages through the stage, as many at a time as the slots allow."""

    async def handle(_: InboundMessage) -> HandlingResult:
        await asyncio.sleep(0.1)
        return result

    call = adapt_concurrency(endpoint)(handle)

    async def one() -> None:
        if not endpoint.slots.try_acquire():
            assert await endpoint.slots.acquire()
        await call(InboundMessage(FakeDelivery(envelope("ledger.total.v1"))))
        endpoint.slots.release()

    await asyncio.gather(*(one() for _ in range(200)))


@virtual
async def test_a_steady_handler_gets_more_slots() -> None:
    endpoint = state(AdaptiveLimit(max=64, start=4))
    assert endpoint.adaptive is not None
    for _ in range(10):
        endpoint.adaptive.follow(endpoint.adaptive.settled)
        await run(endpoint, HandlingResult())
    assert 4 < endpoint.slots.limit == endpoint.adaptive.limit


@virtual
async def test_slots_above_the_prefetch_do_not_exist_except_for_requests_that_run_once() -> None:
    for model, has_more in ((GetTotal, False), (Add, True)):
        endpoint = state(AdaptiveLimit(max=64, start=4), model)
        for _ in range(10):
            await run(endpoint, HandlingResult())
        assert (endpoint.slots.limit > 4) is has_more


@virtual
@pytest.mark.parametrize(
    "error", [DeadlineExceeded("x"), ResourceExhausted("x"), TimeoutError()], ids=type
)
async def test_timeouts_and_overloaded_services_take_slots_away(error: BaseException) -> None:
    endpoint = state(AdaptiveLimit(max=64, start=40))
    for _ in range(10):
        await run(endpoint, HandlingResult(error=error))
    assert endpoint.slots.limit < 30


@virtual
async def test_other_errors_change_nothing() -> None:
    endpoint = state(AdaptiveLimit(max=64, start=8))
    for _ in range(10):
        await run(endpoint, HandlingResult(error=NotFound("x")))
    assert endpoint.slots.limit == 8


@virtual
async def test_a_probe_ends_if_all_messages_fail() -> None:
    endpoint = state(AdaptiveLimit(max=8, start=8))
    adaptive = endpoint.adaptive
    assert adaptive is not None
    while adaptive.limit == adaptive.settled:
        await run(endpoint, HandlingResult())
    assert endpoint.slots.limit < adaptive.settled
    for _ in range(4):
        await run(endpoint, HandlingResult(error=NotFound("x")))
    assert endpoint.slots.limit == adaptive.settled


@virtual
async def test_a_fixed_limit_has_no_stage() -> None:
    async def handle(_: Any) -> HandlingResult:
        return HandlingResult()

    assert adapt_concurrency(state(4))(handle) is handle
