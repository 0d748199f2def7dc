"""Tests of the broker's consumer timeout.

They cover the requeue of overdue deliveries by RabbitMQ 4.3, and the settings of the timeout in 4.3
and in earlier versions.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus import Bus, ConfigurationError, Context, Job, Router, contract
from bus.contracts.contract import Catalog
from bus.messaging.ports.transport import Accepted
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.operations.brokers.broker import Broker
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from bus.transports.rabbitmq import RabbitMQTransport
from tests.conformance.ports import quorum, to
from tests.conformance.world import Ear, Inbox, Side, message, until
from tests.integration.ledger import Place

OVERDUE = 3.0
"""Seconds of the consumer timeout. A second delivery must time out clearly later than the first."""
POLICIES_FROM, CANCELS_FROM = (3, 12), (4, 3)


@pytest.fixture(params=[True, False], ids=["fastlane", "plain"])
def fastlane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def version_of(place: Place) -> tuple[int, ...]:
    return tuple(int(part) for part in (await place.api.version()).split(".")[:2])


@pytest.fixture
async def place(shared_broker: Broker, vhost_url: str) -> Place:
    """Create a virtual host with a consumer timeout for the queue `inbox`.

    The broker must cancel a consumer at the timeout.
    """
    place = Place(shared_broker, vhost_url)
    if await version_of(place) < CANCELS_FROM:
        pytest.skip("needs RabbitMQ 4.3, which cancels a consumer for what is overdue")
    await place.policy("inbox", {"consumer-timeout": int(OVERDUE * 1000)})
    return place


@pytest.fixture
async def strict(shared_broker: Broker, vhost_url: str) -> Place:
    """Create a virtual host on a broker that supports the timeout as a policy only.

    The broker must ignore the argument of a consumer.
    """
    place = Place(shared_broker, vhost_url)
    if not POLICIES_FROM <= await version_of(place) < CANCELS_FROM:
        pytest.skip("needs RabbitMQ 3.12 to 4.2, where a policy has the last word")
    return place


@asynccontextmanager
async def side(place: Place, name: str, *, fastlane: bool) -> AsyncIterator[Side]:
    transport, ear = (
        RabbitMQTransport(place.settings.model_copy(update={"fastlane": fastlane}), name=name),
        Ear(),
    )
    await transport.start(ear, timeout=30)
    try:
        yield Side(transport, ear)
    finally:
        await transport.close()


async def overdue(here: Side, queue: Queue, topology: Topology) -> Inbox:
    """Consume until the first of two messages was requeued and delivered again.

    The second message arrives later, so its delivery has not timed out.
    """
    inbox = await here.consume(queue, topology, prefetch=10)
    assert await here.send(message("long"), to("inbox")) == Accepted()
    await inbox.holds(1)
    await asyncio.sleep(OVERDUE * 2 / 3)  # the next delivery must be clearly younger
    assert await here.send(message("neighbour"), to("inbox")) == Accepted()
    await inbox.holds(3)
    assert inbox.ids == ["long", "neighbour", "long"]
    assert [delivery.redelivered for delivery in inbox.deliveries] == [False, False, True]
    return inbox


async def test_what_is_not_overdue_is_still_acked_where_it_came_and_comes_to_nobody_else(
    place: Place, fastlane: bool
) -> None:
    queue, topology = quorum("inbox")
    async with (
        side(place, "here", fastlane=fastlane) as here,
        side(place, "other", fastlane=fastlane) as other,
    ):
        inbox = await overdue(here, queue, topology)
        late, neighbour, again = inbox.deliveries
        elsewhere = await other.consume(queue, topology, prefetch=10)
        assert not await late.ack()
        assert not await neighbour.ack()
        assert await again.ack()
        await inbox.consumption.close()
        # The broker would deliver a requeued message before this one.
        await here.send(message("last"), to("inbox"))
        assert (await elsewhere.next()).envelope.id == "last"


async def test_a_late_ack_brings_no_message_to_the_channel_of_before(
    place: Place, fastlane: bool
) -> None:
    queue, topology = quorum("inbox")
    async with side(place, "here", fastlane=fastlane) as here:
        inbox = await overdue(here, queue, topology)
        await inbox.deliveries[0].ack()
        numbers = [str(number) for number in range(7)]
        for number in numbers:
            await here.send(message(number), to("inbox"))
        came = (await inbox.holds(3 + len(numbers)))[3:]
        assert [delivery.envelope.id for delivery in came] == numbers
        assert [await delivery.ack() for delivery in came] == [True] * len(numbers)

        async def one_is_registered() -> bool:
            (row,) = await place.api.call(
                "GET", f"queues/{place.vhost}?disable_stats=true&enable_queue_totals=true"
            )
            return (
                len(await place.api.call("GET", f"consumers/{place.vhost}")) == 1
                and row["messages"] == 2
            )

        await until(one_is_registered, "one consumer, with the two messages of before")


async def test_what_is_unsettled_on_a_channel_of_before_goes_back_when_the_consumer_is_closed(
    place: Place, fastlane: bool
) -> None:
    queue, topology = quorum("inbox")
    async with (
        side(place, "here", fastlane=fastlane) as here,
        side(place, "other", fastlane=fastlane) as other,
    ):
        inbox = await overdue(here, queue, topology)
        await inbox.deliveries[2].ack()
        await inbox.consumption.close()
        assert not await inbox.deliveries[1].ack()
        elsewhere = await other.consume(queue, topology)
        assert (await elsewhere.next()).envelope.id == "neighbour"


# --- A consumer's own timeout ---


@contract("slow.long", version=1, catalog=Catalog())
class Long(Job[None]):
    """A job that takes longer than the broker's consumer timeout."""


async def test_a_job_three_times_as_long_as_the_consumer_timeout_runs_once_in_one_of_two_processes(
    place: Place, fastlane: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await place.policy("slow.jobs.long.v1", {"consumer-timeout": 1000})
    settings, runs, router = (
        place.settings.model_copy(update={"consumer_timeout": 1.0, "fastlane": fastlane}),
        list[str](),
        Router("slow"),
    )

    @router.job(Long, timeout=100)
    async def long(_job: Long, context: Context) -> None:
        runs.append(context.envelope.id)
        await asyncio.sleep(3)  # three times the consumer timeout

    async with (
        Bus("slow", settings=settings) as one,
        Bus("slow", settings=settings) as two,
        one.serving(router),
        two.serving(router),
    ):
        jobs = [await one.submit(Long()) for _ in range(2)]
        for job in jobs:
            await job.result(timeout=60)
    assert sorted(runs) == sorted(job.id for job in jobs)
    assert "consuming again" not in caplog.text


async def test_before_4_3_a_policy_says_at_the_start_whether_a_handler_may_take_so_long(
    strict: Place,
) -> None:
    router, queue = Router("slow"), "slow.jobs.long.v1"

    @router.job(Long, timeout=100)
    async def long(_job: Long) -> None:
        pass

    impatient = strict.settings.model_copy(update={"consumer_timeout": 10.0})
    await strict.policy(queue, {"consumer-timeout": 100_000})
    async with Bus("slow", settings=impatient) as bus, bus.serving(router):
        assert bus.ready
    await strict.policy(queue, {"consumer-timeout": 99_000})
    async with Bus("slow", settings=impatient) as bus:
        with pytest.raises(ConfigurationError, match=r"slow\.long\.v1 may take 100 s.*after 99 s"):
            await bus.serve(router)
    async with Bus("slow", settings=strict.settings) as bus:
        with pytest.raises(
            ConfigurationError,
            match=rf"unsafe queue {queue}: the consumer timeout is 99 s, below the 100 s",
        ):
            await bus.serve(router)


async def test_over_a_connection_of_faststream_it_is_said_as_well(place: Place) -> None:
    transport, inbox = (
        FastStreamTransport(
            broker_of_its_own(place.settings, name="desk"), settings=place.settings, name="desk"
        ),
        Inbox(),
    )
    queue, topology = quorum("inbox")
    await transport.start(Ear(), timeout=30)
    try:
        spec = ConsumerSpec(queue=queue, topology=topology, prefetch=10, consumer_timeout=100)
        inbox.consumption = await transport.consume(spec, inbox.take)
        await until(lambda: inbox.consumption.ready, "the consumer")

        async def shown() -> bool:
            consumers = await place.api.call("GET", f"consumers/{place.vhost}")
            return [each["arguments"] for each in consumers] == [{"x-consumer-timeout": 100_000}]

        await until(shown, "the consumer's own word")
    finally:
        await transport.close()
