"""The stages that hold a message for its dependency, and that watch the handler's results."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from bus import AdaptiveLimit, Dependency, Router
from bus.errors import Unavailable
from bus.messaging.dependency_wait import DEPENDENCY_FAILURES, DEPENDENCY_RETURNS
from bus.messaging.resilience.call_policy import DEFAULT_POLICY
from bus.messaging.resilience.destinations import Destinations
from bus.messaging.timers import loop_time
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.runtime.consumer_cancellation import REGISTER_TIMEOUT_SECONDS
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.held_messages import HoldEnd
from bus.runtime.inbound_message import (
    NO_ACTION,
    REQUEUE,
    HandlingResult,
    InboundHandler,
    InboundMessage,
)
from bus.runtime.poison_isolation import CandidateQueue, PoisonCandidate
from bus.runtime.server import receiver_for
from bus.runtime.service_activator import ServiceStack
from bus.runtime.stages.hold_for_dependency import hold_for_dependency
from bus.runtime.stages.limit_concurrency import limit_concurrency
from bus.runtime.stages.start_with_permit import start_with_permit
from bus.runtime.stages.watch_dependency import watch_dependency
from bus.security.anonymous import OpenGuard
from tests.unit.fakes import (
    NOW,
    FakeDelivery,
    FakeTransport,
    NoSender,
    envelope,
    runtime_of,
    settle_down,
    virtual,
)
from tests.unit.ledger import CloseBooks, GetTotal, Total

QUEUE = "ledger.jobs.close.v1"


class EhrDown(Exception):
    """The dependency of these tests is down."""


EHR = Dependency(name="ehr", failures=(EhrDown,), consecutive_failures=2, probe_interval=10)


def state(model: Any = CloseBooks, **options: Any) -> EndpointState:
    router, transport = Router("ledger"), FakeTransport()

    async def work(_message: Any) -> Total:
        return Total(total=1)

    register: Any = router.job if model is CloseBooks else router.request
    register(model, **{"dependency": EHR, "concurrency": 4, **options})(work)
    ((name, endpoint),) = router.endpoints.items()
    queue, topology = router.topology()[name]
    return EndpointState(
        endpoint=endpoint,
        spec=ConsumerSpec(queue=queue, topology=topology, prefetch=4),
        runtime=replace(
            runtime_of(transport),
            destinations=Destinations({}, DEFAULT_POLICY, timer=loop_time, clock=lambda: NOW),
        ),
        guard=OpenGuard(),
        candidates=CandidateQueue(),
    )


def job(id: str, **attributes: Any) -> InboundMessage:  # noqa: A002 - id of the message
    return InboundMessage(
        FakeDelivery(envelope("ledger.close.v1", role="job", queue=QUEUE, id=id, **attributes))
    )


class Handler:
    """A handler that fails with `error`, or succeeds."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.seen: list[str] = []

    async def __call__(self, message: InboundMessage) -> HandlingResult:
        self.seen.append(message.envelope.id)
        return HandlingResult(error=self.error)


def stages(endpoint: EndpointState, handler: InboundHandler) -> InboundHandler:
    """Return the handler inside the stages of its dependency, and the one that gives slots."""
    started = start_with_permit(endpoint)(watch_dependency(endpoint)(handler))
    inner = hold_for_dependency(endpoint)(limit_concurrency(endpoint)(started))

    async def handle(message: InboundMessage) -> HandlingResult:
        try:
            return await inner(message)
        finally:
            endpoint.in_flight.finish(message)

    return handle


async def opened(endpoint: EndpointState) -> None:
    """Let the breaker of the endpoint open."""
    failing = stages(endpoint, Handler(EhrDown()))
    for name in "ab":
        await failing(job(name))


def held(endpoint: EndpointState, handler: InboundHandler, id: str) -> asyncio.Task[HandlingResult]:  # noqa: A002 - id of the message
    """Begin to handle a message that is held."""

    async def run() -> HandlingResult:
        return await stages(endpoint, handler)(job(id))

    return asyncio.create_task(run())


@virtual
async def test_endpoints_without_a_dependency_have_neither_stage() -> None:
    endpoint, handler = state(dependency=None), Handler()
    for stage in (hold_for_dependency, start_with_permit, watch_dependency):
        assert stage(endpoint)(handler) is handler


@virtual
async def test_a_request_is_not_held() -> None:
    endpoint, handler = state(GetTotal), Handler()
    for stage in (hold_for_dependency, start_with_permit):
        assert stage(endpoint)(handler) is handler


@virtual
async def test_held_messages_start_one_at_a_time_and_the_oldest_one_first() -> None:
    endpoint, handler = state(), Handler(EhrDown())
    await opened(endpoint)
    began = loop_time()
    tasks = [held(endpoint, handler, name) for name in "123"]
    for count in range(1, 4):
        await asyncio.sleep(began + 10 * count + 0.1 - loop_time())
        assert handler.seen == [*"123"[:count]]
    assert all(result.dependency_return for result in await asyncio.gather(*tasks))


class SlowHandler(Handler):
    """A handler that runs for a second."""

    @override
    async def __call__(self, message: InboundMessage) -> HandlingResult:
        self.seen.append(message.envelope.id)
        await asyncio.sleep(1)
        return HandlingResult(error=self.error)


@virtual
async def test_a_message_that_waited_for_a_slot_does_not_start_in_an_outage() -> None:
    endpoint, handler = state(concurrency=2), SlowHandler(EhrDown())
    tasks = [held(endpoint, handler, name) for name in "123456"]
    await asyncio.sleep(9)
    assert handler.seen == [*"12"]
    handler.error = None
    await asyncio.sleep(100)
    assert handler.seen == [*"123456"]  # in the order of their arrival
    assert (await tasks[2]).error is None
    assert endpoint.slots.used == 0


@virtual
async def test_messages_above_a_lowered_adaptive_limit_do_not_start_after_a_failure() -> None:
    limit = AdaptiveLimit(max=16, start=16)
    endpoint, handler = state(concurrency=limit), SlowHandler(EhrDown())
    endpoint.slots.resize(3)
    for number in range(16):
        held(endpoint, handler, str(number))
    await asyncio.sleep(9)
    assert handler.seen == [*"012"]


@virtual
async def test_under_suspicion_a_message_with_a_slot_waits_until_the_running_ones_end() -> None:
    endpoint, handler = state(concurrency=2), SlowHandler()
    failing = SlowHandler(EhrDown())
    held(endpoint, failing, "1")
    await asyncio.sleep(0.5)
    for name in "234":
        held(endpoint, handler, name)
    await asyncio.sleep(0.75)
    assert (failing.seen, handler.seen) == (["1"], ["2"])  # a slot is free
    await asyncio.sleep(0.5)
    assert handler.seen == [*"234"]


@virtual
async def test_a_message_that_ends_before_it_has_a_slot_gives_its_permit_back() -> None:
    endpoint, handler = state(concurrency=1), SlowHandler()
    first, second = held(endpoint, handler, "1"), held(endpoint, handler, "2")
    await asyncio.sleep(0.5)
    second.cancel()
    await asyncio.sleep(0)
    assert (await first).error is None
    endpoint.slots.refuse_waiters()
    assert await stages(endpoint, handler)(job("3")) is REQUEUE
    gate = endpoint.dependency
    assert gate is not None
    for _ in range(2):
        permit = gate.enter("office", 60)
        assert permit is not None
        assert gate.begin(permit)
        gate.fail(permit, EhrDown())
    assert gate.is_open


@virtual
async def test_a_poison_candidate_with_a_void_permit_returns_by_a_tier_and_ends_its_turn() -> None:
    endpoint, handler = state(concurrency=1), SlowHandler(EhrDown())
    held(endpoint, handler, "1")
    message = job("2")
    message.candidate = PoisonCandidate(queue=QUEUE, id="2", losses=2)
    running = asyncio.ensure_future(stages(endpoint, handler)(message))
    held(endpoint, handler, "3")
    await asyncio.sleep(0.5)
    (breaker,) = endpoint.runtime.breakers.get("ehr", "dependency")
    breaker.isolate(int((NOW + 3600) * 1000), "anna", "maintenance")
    result = await running
    assert result.dependency_return is not None
    assert handler.seen == ["1"]


@virtual
async def test_an_operators_order_holds_messages_and_releases_them_within_a_second() -> None:
    endpoint, handler = state(), Handler()
    (breaker,) = endpoint.runtime.breakers.get("ehr", "dependency")
    breaker.isolate(int((NOW + 3600) * 1000), "anna", "maintenance")
    tasks = [held(endpoint, handler, name) for name in "12"]
    await asyncio.sleep(600)
    assert handler.seen == []
    breaker.reset("anna", "done")
    await asyncio.sleep(1.1)
    assert (handler.seen, [task.done() for task in tasks]) == (["1", "2"], [True, True])


@virtual
async def test_a_message_whose_channel_has_ended_does_not_start() -> None:
    endpoint, handler = state(), Handler()
    await opened(endpoint)
    message = job("1")
    running = asyncio.ensure_future(stages(endpoint, handler)(message))
    await settle_down()
    delivery: Any = message.deliveries[0]
    delivery.alive = False
    later = held(endpoint, handler, "2")
    assert await running is NO_ACTION
    assert (await later).error is None  # it is the probe instead
    assert handler.seen == ["2"]


@virtual
async def test_a_message_whose_channel_has_ended_does_not_return_by_a_tier_either() -> None:
    endpoint = state()
    await opened(endpoint)
    message = job("1")
    running = asyncio.ensure_future(stages(endpoint, Handler())(message))
    await settle_down()
    delivery: Any = message.deliveries[0]
    delivery.alive = False
    endpoint.in_flight.end_holds(HoldEnd.RETURN)
    assert await running is NO_ACTION


@virtual
async def test_a_gate_is_paused_only_while_a_message_would_wait() -> None:
    endpoint = state()
    gate = endpoint.dependency
    assert gate is not None
    paused = [gate.is_paused]
    await opened(endpoint)
    paused.append(gate.is_paused)
    await asyncio.sleep(10)
    paused.append(gate.is_paused)  # the next message tries at once
    await stages(endpoint, Handler(EhrDown()))(job("1"))
    paused.append(gate.is_paused)
    assert paused == [False, True, False, True]


@virtual
async def test_a_service_that_stops_requeues_held_messages_and_holds_no_more() -> None:
    endpoint, handler = state(), Handler()
    await opened(endpoint)
    running = held(endpoint, handler, "1")
    await settle_down()
    endpoint.in_flight.stop()
    assert await running is REQUEUE
    assert await stages(endpoint, handler)(job("2")) is REQUEUE
    endpoint.in_flight.end_holds(HoldEnd.RETURN)
    assert await stages(endpoint, handler)(job("3")) is REQUEUE
    assert handler.seen == []


@virtual
async def test_a_cancelled_message_gives_its_permit_back() -> None:
    endpoint, handler = state(), Handler()
    await opened(endpoint)
    first, second = held(endpoint, handler, "1"), held(endpoint, handler, "2")
    await settle_down()
    assert endpoint.dependency is not None
    await asyncio.sleep(10 - 0.001)
    first.cancel()
    assert (await second).error is None
    assert first.cancelled()
    assert handler.seen == ["2"]


@virtual
async def test_the_poison_isolation_returns_held_messages_by_a_tier_and_waits_for_none() -> None:
    endpoint = state()
    transport: Any = endpoint.runtime.transport
    await opened(endpoint)
    receiver = receiver_for(endpoint, ServiceStack(handler=_never, sender=NoSender()))
    consumer = EndpointConsumer(transport, receiver)
    await consumer.start()
    deliveries = [job(name).deliveries[0] for name in "12"]
    for delivery in deliveries:
        transport.deliver(delivery)
    await settle_down()
    assert transport.sent == []
    began = loop_time()
    await consumer.pause()
    assert loop_time() - began <= REGISTER_TIMEOUT_SECONDS  # the fake never registers again
    assert consumer.pauses == ("poison-isolation", "dependency:ehr")
    copies = [sent.envelope for sent in transport.sent]
    assert [(copy.id, copy.attempt, copy.headers) for copy in copies] == [
        ("1", 1, {DEPENDENCY_RETURNS: 1}),
        ("2", 1, {DEPENDENCY_RETURNS: 1}),
    ]
    assert {sent.address.exchange for sent in transport.sent} == {"ledger.retry.5s"}
    assert [(each.acks, each.requeues) for each in deliveries] == [(1, 0), (1, 0)]  # type: ignore[attr-defined]  # a fake
    await consumer.resume()
    late = job("3").deliveries[0]
    transport.deliver(late)
    await settle_down()
    assert len(transport.sent) == 2
    assert [*consumer.pauses] == ["dependency:ehr"]
    receiver.stop_accepting()
    await receiver.drain()
    assert late.requeues == 1  # type: ignore[attr-defined]  # a fake


async def _never(_message: object) -> None:
    raise AssertionError("a held message has started")


@virtual
async def test_failures_while_the_breaker_is_closed_use_attempts_after_the_threshold() -> None:
    endpoint = state(dependency=replace(EHR, consecutive_failures=3))
    watched = stages(endpoint, Handler(EhrDown()))
    for failures, returns in [(0, True), (3, False)]:
        result = await watched(job("1", headers={DEPENDENCY_FAILURES: failures}))
        assert (result.dependency_return is not None) is returns
    last = await watched(job("1", headers={DEPENDENCY_FAILURES: 9}))
    assert last.dependency_return is not None  # it has opened the breaker
    assert not last.dependency_return.is_failure_counted


@pytest.mark.parametrize("count", ["many", -1, 0, 2**60])
def test_a_count_that_a_sender_has_invented_counts_as_none(count: Any) -> None:
    @virtual
    async def run() -> None:
        watched = stages(state(), Handler(EhrDown()))
        result = await watched(job("1", headers={DEPENDENCY_FAILURES: count}))
        assert result.dependency_return is not None

    run()


@virtual
async def test_a_request_that_meets_an_open_breaker_is_refused_and_says_when_to_try_again() -> None:
    endpoint, handler = state(GetTotal), Handler(EhrDown())
    watched = stages(endpoint, handler)
    message = InboundMessage(FakeDelivery(envelope("ledger.total.v1")))
    for _ in range(2):
        assert isinstance((await watched(message)).error, EhrDown)
    await asyncio.sleep(4)
    refused = await watched(message)
    assert len(handler.seen) == 2
    assert isinstance(refused.error, Unavailable)
    assert (refused.error.retry_after, refused.error.stated_executed) == (6, "no")
    assert refused.dependency_return is None
    handler.error = None
    await asyncio.sleep(6)
    assert (await watched(message)).error is None


def test_a_job_that_has_returned_may_have_been_begun_by_a_handler() -> None:
    assert not job("a").is_repeated
    assert job("a", headers={DEPENDENCY_RETURNS: 1}).is_repeated
