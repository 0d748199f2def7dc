"""Tests of events, which zero or more services subscribe to."""

import asyncio

import pytest

from bus.contracts.contract import contract_of
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import ContractError, DeadlineExceeded
from bus.messaging.context import Context
from bus.messaging.topology.names import dead_letter_queue, event_queue
from bus.runtime.router import Router
from tests.conformance.contracts import Ask, Told, ToldNewly, Word, Write
from tests.conformance.world import World, stays, until


def subscriber(name: str, heard: list[str], subscription: str | None = None) -> Router:
    router = Router(name)

    @router.event(Told, subscription=subscription)
    async def told(event: Told) -> None:
        heard.append(event.text)

    return router


async def test_an_event_without_subscribers_is_published_all_the_same(world: World) -> None:
    desk = await world.bus("desk")
    await desk.publish(Told(text="nobody cares"), timeout=30)


async def test_two_subscriptions_of_one_event_each_get_it_once(world: World) -> None:
    desk, index = await world.bus("desk"), await world.bus("index")
    one: list[str] = []
    two: list[str] = []
    router = Router("index")

    @router.event(Told, subscription="one")
    async def first(event: Told) -> None:
        one.append(event.text)

    @router.event(Told, subscription="two")
    async def second(event: Told) -> None:
        two.append(event.text)

    await world.serve(index, router)
    for number in range(5):
        await desk.publish(Told(text=str(number)), timeout=30)
    await until(lambda: len(one) >= 5 and len(two) >= 5, "the events")
    await stays(lambda: len(one) == len(two) == 5, "once each")
    assert await world.exists(event_queue("index", contract_of(Told), "one"))
    assert await world.exists(event_queue("index", contract_of(Told), "two"))


async def test_two_services_each_get_an_event(world: World) -> None:
    desk, index, audit = await world.bus("desk"), await world.bus("index"), await world.bus("audit")
    heard: dict[str, list[str]] = {"index": [], "audit": []}
    await world.serve(index, subscriber("index", heard["index"]))
    await world.serve(audit, subscriber("audit", heard["audit"]))
    await desk.publish(Told(text="1"), timeout=30)
    await until(lambda: heard == {"index": ["1"], "audit": ["1"]}, "the event")


async def test_two_instances_of_one_subscription_share_its_events(world: World) -> None:
    desk = await world.bus("desk")
    heard: list[list[str]] = [[], []]
    for mine in heard:
        router = Router("index")

        @router.event(Told, concurrency=1)
        async def told(event: Told, mine: list[str] = mine) -> None:
            mine.append(event.text)
            await asyncio.sleep(0.02)

        await world.serve(await world.bus("index"), router)
    await asyncio.gather(
        *(desk.publish(Told(text=str(number)), timeout=30) for number in range(20))
    )
    await until(lambda: len(heard[0] + heard[1]) >= 20, "the events")
    await stays(lambda: len(heard[0] + heard[1]) == 20, "once each")
    assert all(heard)


async def test_events_wait_for_a_subscriber_that_is_away(world: World) -> None:
    desk, index = await world.bus("desk"), await world.bus("index")
    heard: list[str] = []
    async with index.serving(subscriber("index", heard)):
        pass
    await desk.publish(Told(text="meanwhile"), timeout=30)
    assert not heard
    await world.serve(index, subscriber("index", heard))
    await until(lambda: heard == ["meanwhile"], "the event")


async def test_an_old_subscriber_never_gets_a_newer_version(world: World) -> None:
    desk, index = await world.bus("desk"), await world.bus("index")
    heard: list[str] = []
    await world.serve(index, subscriber("index", heard))
    await desk.publish(ToldNewly(text="new"), timeout=30)
    await desk.publish(Told(text="old"), timeout=30)
    await until(lambda: heard, "the event")
    await stays(lambda: heard == ["old"], "no newer version")


async def test_an_event_published_while_handling_a_request_outlives_that_requests_deadline(
    world: World,
) -> None:
    desk, client, index = (
        await world.bus("desk"),
        await world.bus("client"),
        await world.bus("index"),
    )
    heard: list[str] = []
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        await desk.publish(Told(text="of the request"))
        await asyncio.sleep(30)
        return Word(text="late")

    async with index.serving(subscriber("index", heard)):
        pass  # The subscription's queue now exists without a consumer.
    await world.serve(desk, router)
    with pytest.raises(DeadlineExceeded):
        await client.request(Ask(), timeout=2)
    await asyncio.sleep(0.5)
    await world.serve(index, subscriber("index", heard))
    await until(lambda: heard == ["of the request"], "the event after the deadline")


async def test_an_event_published_in_the_clean_up_after_a_requests_deadline_goes_out(
    world: World,
) -> None:
    desk, client, index = (
        await world.bus("desk"),
        await world.bus("client"),
        await world.bus("index"),
    )
    heard: list[str] = []
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        try:
            await asyncio.sleep(30)
        finally:
            await desk.publish(Told(text="given up"))
        return Word(text="late")

    await world.serve(index, subscriber("index", heard))
    await world.serve(desk, router)
    with pytest.raises(DeadlineExceeded):
        await client.request(Ask(), timeout=2)
    await until(lambda: heard == ["given up"], "the event")


async def test_one_correlation_id_and_a_chain_of_causes_run_through_request_event_and_job(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    contexts: list[Context] = []
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask, context: Context) -> Word:
        contexts.append(context)
        await context.bus.publish(Told(text="1"))
        return Word(text="")

    @router.event(Told)
    async def told(event: Told, context: Context) -> None:
        contexts.append(context)
        await context.bus.submit(Write(text="2"))

    @router.job(Write)
    async def write(job: Write, context: Context) -> Word:
        contexts.append(context)
        return Word(text="")

    await world.serve(desk, router)
    await client.request(Ask(), timeout=30)
    await until(lambda: len(contexts) == 3, "the job")
    request, event, job = (context.envelope for context in contexts)
    assert request.correlation_id
    assert {event.correlation_id, job.correlation_id} == {request.correlation_id}
    assert (request.causation_id, event.causation_id, job.causation_id) == (
        None,
        request.id,
        event.id,
    )
    traces = {(envelope.traceparent or "").split("-")[1] for envelope in (request, event, job)}
    assert len(traces) == 1


async def test_another_services_event_cannot_be_published(world: World) -> None:
    client = await world.bus("client")
    with pytest.raises(ContractError, match="desk"):
        await client.publish(Told(), timeout=30)


async def test_an_event_that_fails_is_tried_again_in_its_own_subscription_only(
    world: World,
) -> None:
    desk, index, audit = await world.bus("desk"), await world.bus("index"), await world.bus("audit")
    attempts: list[int] = []
    heard: list[str] = []
    router = Router("index")

    @router.event(Told, retry=RetryPolicy(attempts=2, first_delay=1))
    async def told(event: Told, context: Context) -> None:
        attempts.append(context.envelope.attempt)
        raise ValueError

    await world.serve(index, router)
    await world.serve(audit, subscriber("audit", heard))
    await desk.publish(Told(text="1"), timeout=30)
    (dead,) = await world.holds(dead_letter_queue(event_queue("index", contract_of(Told))), 1)
    assert attempts == [1, 2]
    assert heard == ["1"]
    assert (dead.headers["dead-code"], dead.headers["dead-attempts"]) == ("internal", 2)
