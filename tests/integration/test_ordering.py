"""Tests on a broker of the promises in docs/explanation/ordering.md."""

import asyncio

import pytest
from pydantic import SecretStr

from bus import Bus, Context, Event, Job, RetryPolicy, Router, Settings, Unavailable, contract
from tests.polling import until

MANY = 100


@contract("orderly.count", version=1)
class Count(Job[None]):
    number: int


@contract("orderly.counted", version=1)
class Counted(Event):
    number: int


def orderly(url: str, *, stop_grace: float = 5) -> Bus:
    return Bus("orderly", settings=Settings(url=SecretStr(url), stop_grace=stop_grace))


async def test_one_process_that_handles_one_at_a_time_keeps_the_order_of_the_sends(
    vhost_url: str,
) -> None:
    router, heard = Router("orderly"), list[int]()

    @router.event(Counted, concurrency=1)
    async def on_counted(event: Counted) -> None:
        await asyncio.sleep(0)
        heard.append(event.number)

    async with orderly(vhost_url) as bus, bus.serving(router):
        # The publishes are not awaited one by one: they are written in the order of their calls.
        await asyncio.gather(*(bus.publish(Counted(number=number)) for number in range(MANY)))
        await until(lambda: len(heard) == MANY, "every event")
    assert heard == [*range(MANY)]


async def test_several_at_a_time_begin_in_order_and_end_in_any(vhost_url: str) -> None:
    router, begun, ended, first_may_end = (
        Router("orderly"),
        list[int](),
        list[int](),
        asyncio.Event(),
    )

    @router.event(Counted, concurrency=2)
    async def on_counted(event: Counted) -> None:
        begun.append(event.number)
        if event.number == 0:
            await first_may_end.wait()
        ended.append(event.number)

    async with orderly(vhost_url) as bus, bus.serving(router):
        for number in range(10):
            await bus.publish(Counted(number=number))
        await until(lambda: len(ended) == 9, "all but the first")
        first_may_end.set()
        await until(lambda: len(ended) == 10, "the first")
    assert begun == [*range(10)]
    assert ended == [*range(1, 10), 0]


async def test_what_is_tried_again_is_overtaken_by_what_came_after_it(vhost_url: str) -> None:
    router, done = Router("orderly"), list[int]()

    @router.job(Count, concurrency=1, retry=RetryPolicy(attempts=2, first_delay=1))
    async def count(job: Count, context: Context) -> None:
        if job.number == 0 and context.envelope.attempt == 1:
            raise Unavailable("not yet")
        done.append(job.number)

    async with orderly(vhost_url) as bus, bus.serving(router):
        for number in range(3):
            await bus.submit(Count(number=number))
        await until(lambda: len(done) == 3, "all of them")
    assert done == [1, 2, 0]


@pytest.mark.parametrize(("concurrency", "dies"), [(1, True), (3, True), (3, False)])
async def test_what_a_worker_leaves_behind_comes_before_the_rest_and_one_at_a_time_in_order(
    vhost_url: str, concurrency: int, dies: bool
) -> None:
    leaves, takes = Router("orderly"), Router("orderly")
    begun, done = list[int](), list[int]()

    @leaves.job(Count, concurrency=concurrency)
    async def never(job: Count) -> None:
        begun.append(job.number)
        await asyncio.Event().wait()

    @takes.job(Count, concurrency=1)
    async def count(job: Count) -> None:
        done.append(job.number)

    async with orderly(vhost_url) as caller:
        async with orderly(vhost_url, stop_grace=0) as first, first.serving(leaves):
            for number in range(8):
                await caller.submit(Count(number=number))
            await until(lambda: len(begun) == concurrency, "as many as run at a time")
            if dies:
                # The connections end before a message is requeued.
                await first._transport.close()
        async with orderly(vhost_url) as second, second.serving(takes):
            await until(lambda: len(done) == 8, "all of them")
    # With a concurrency above 1 there are two consumers, and the first one holds one message. The
    # broker requeues the messages of both.
    in_hand = 1 if concurrency == 1 else 1 + concurrency
    assert sorted(done[:in_hand]) == [*range(in_hand)]
    assert done[in_hand:] == [*range(in_hand, 8)]
