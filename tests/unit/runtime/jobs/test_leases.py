"""Leases and tokens: which worker has a job, and what happens if a worker is lost."""

import asyncio
import logging

import pytest

from bus import BusError, Context, Job, Message, Router, contract
from bus.messaging.store_instruments import JOBS_LEASES_LOST, JOBS_STALE_WRITES
from bus.runtime.bus import Bus
from tests.unit.runtime.jobs.durable import CALLS, Durable, durable
from tests.unit.runtime.jobs.test_recording import listen


class Bound(Message):
    """Result of a job."""

    by: str


@contract("bindery.bind", version=1)
class Bind(Job[Bound]):
    """A job of the service with a store."""


class Workshop:
    """Handlers of several instances, which end when the test says so."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        """The instance and the attempt of each start."""
        self.cancelled: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    def router(self, instance: str, *, concurrency: int = 4) -> Router:
        """Return the router of one instance."""
        router, end = Router("bindery"), self.ends.setdefault(instance, asyncio.Event())

        @router.job(Bind, concurrency=concurrency)
        async def bind(job: Bind, context: Context) -> Bound:
            self.started.append((instance, context.envelope.attempt))
            try:
                await end.wait()
            except asyncio.CancelledError:
                self.cancelled.append(instance)
                raise
            return Bound(by=instance)

        return router

    def end(self, *instances: str) -> None:
        """Let handlers end."""
        for instance in instances:
            self.ends[instance].set()


def counted(bus: Bus, name: str) -> float:
    """Return a counter of a bus, with all its labels."""
    return sum(each.value or 0 for each in bus.report.stats().series if each.name == name)


@durable
async def test_one_missed_renewal_changes_nothing(world: Durable) -> None:
    shop, store = Workshop(), world.watched()
    await world.serve(shop.router("a"), store=store, job_lease=30)
    handle = await (await world.client()).submit(Bind())
    await world.row(handle.id, "running")
    await world.serve(shop.router("b"), job_lease=30)
    store.jobs.refused = {"renew"}
    await asyncio.sleep(15)
    store.jobs.refused = set()
    await asyncio.sleep(60)
    record = await world.row(handle.id, "running")
    assert (record.losses, record.token, shop.started) == (0, 1, [("a", 1)])
    shop.end("a", "b")
    assert (await handle.result(timeout=5)).by == "a"


@durable
async def test_a_renewal_without_an_answer_is_reported_as_a_store_that_is_away(
    world: Durable,
) -> None:
    async def never(*args: object, **options: object) -> object:
        return await asyncio.get_running_loop().create_future()

    shop, lines = Workshop(), listen("bus.jobs")
    world.store.jobs.renew = never
    await world.serve(shop.router("a"), job_lease=30)
    handle = await (await world.client()).submit(Bind())
    await world.row(handle.id, "running")
    await asyncio.sleep(21)
    assert any("the store is away: it has not answered within 10 s." in line for line in lines)
    shop.end("a")
    assert (await handle.result(timeout=5)).by == "a"


@durable
async def test_an_expired_lease_hands_the_job_over_and_counts_a_loss(world: Durable) -> None:
    shop, store = Workshop(), world.watched()
    async with world.serving(shop.router("a"), store=store) as frozen:
        handle = await (await world.client()).submit(Bind())
        await world.row(handle.id, "running")
        store.jobs.refused = set(CALLS)
        await world.serve(shop.router("b"))
        await asyncio.sleep(32)
        record = await world.row(handle.id, "running")
        assert (record.losses, record.attempt, record.token) == (1, 1, 2)
        assert shop.started == [("a", 1), ("b", 1)]
        # The late end of the first attempt is refused, also if it arrives before the other end.
        shop.end("a")
        store.jobs.refused = {"renew"}
        await asyncio.sleep(2)
        assert (await world.row(handle.id, "running")).token == 2
        assert counted(frozen, JOBS_STALE_WRITES.name) == 1
        shop.end("b")
        assert (await handle.result(timeout=5)).by == "b"


@durable
async def test_a_stale_token_cancels_the_attempt_of_this_process_and_is_counted(
    world: Durable,
) -> None:
    shop, store = Workshop(), world.watched()
    bus = await world.serve(shop.router("a"), store=store)
    handle = await (await world.client()).submit(Bind())
    await world.row(handle.id, "running")
    store.jobs.refused = set(CALLS)
    await world.serve(shop.router("b"))
    await asyncio.sleep(32)
    assert shop.cancelled == []  # the first instance does not know yet
    store.jobs.refused = {"claim"}
    await asyncio.sleep(3)
    assert shop.cancelled == ["a"]
    assert counted(bus, JOBS_LEASES_LOST.name) == 1
    shop.end("b")
    assert (await handle.result(timeout=5)).by == "b"
    assert shop.started == [("a", 1), ("b", 1)]


@durable
async def test_a_worker_that_was_away_longer_than_its_lease_keeps_its_job_if_nobody_took_it(
    world: Durable,
) -> None:
    shop, store = Workshop(), world.watched()
    await world.serve(shop.router("a"), store=store)
    handle = await (await world.client()).submit(Bind())
    await world.row(handle.id, "running")
    store.jobs.refused = set(CALLS)
    await asyncio.sleep(90)
    store.jobs.refused = {"renew"}  # the claim returns before the renewal
    await asyncio.sleep(5)
    store.jobs.refused = set()
    assert (await world.row(handle.id, "running")).token == 2
    await asyncio.sleep(40)
    shop.end("a")
    assert (await handle.result(timeout=5)).by == "a"
    assert shop.started == [("a", 1)]
    assert shop.cancelled == []


@durable
async def test_a_result_is_written_although_the_lease_expired_before_the_store_was_back(
    world: Durable,
) -> None:
    shop, store = Workshop(), world.watched()
    await world.serve(shop.router("a"), store=store)
    handle = await (await world.client()).submit(Bind())
    await world.row(handle.id, "running")
    store.jobs.refused = set(CALLS)
    shop.end("a")
    await asyncio.sleep(90)
    store.jobs.refused = {"end", "renew"}
    await asyncio.sleep(5)
    assert (await world.row(handle.id, "running")).token == 2
    store.jobs.refused = set()
    assert (await handle.result(timeout=5)).by == "a"
    assert (await world.row(handle.id, "succeeded")).token == 2
    assert shop.started == [("a", 1)]


@durable
async def test_a_stop_returns_a_job_at_once_with_no_attempt_and_no_loss(world: Durable) -> None:
    shop = Workshop()
    async with world.serving(shop.router("a"), stop_grace=1):
        handle = await (await world.client()).submit(Bind())
        await world.row(handle.id, "running")
    record = await world.row(handle.id, "queued")
    assert (record.attempt, record.losses, record.lease_until) == (0, 0, None)
    await world.serve(shop.router("b"))
    shop.end("b")
    assert (await handle.result(timeout=5)).by == "b"
    assert shop.started == [("a", 1), ("b", 1)]


@durable
async def test_a_job_whose_claim_arrives_during_a_stop_returns_at_once(world: Durable) -> None:
    shop, store = Workshop(), world.watched()
    claim = world.store.jobs.claim

    async def slow_claim(*args: object, **options: object) -> object:
        claimed = await claim(*args, **options)
        if claimed:
            await asyncio.sleep(2)
        return claimed

    world.store.jobs.claim = slow_claim
    async with world.serving(shop.router("a"), store=store):
        handle = await (await world.client()).submit(Bind())
        await world.row(handle.id, "running")
    record = await world.row(handle.id, "queued")
    assert (record.attempt, record.losses, shop.started) == (0, 0, [])


@durable
async def test_one_call_renews_all_leases_of_a_process(world: Durable) -> None:
    shop, store = Workshop(), world.watched()
    await world.serve(shop.router("a", concurrency=20), store=store)
    desk = await world.client()
    handles = [await desk.submit(Bind()) for _ in range(20)]
    for handle in handles:
        await world.row(handle.id, "running")
    store.jobs.calls.clear()
    await asyncio.sleep(30.5)
    renewals = [attempts for name, attempts in store.jobs.calls if name == "renew"]
    assert [len(attempts) for attempts in renewals] == [20, 20, 20]
    shop.end("a")


@durable
async def test_a_job_that_lost_too_many_workers_fails_with_process_lost(
    world: Durable,
) -> None:
    shop = Workshop()
    desk = await world.client()
    async with world.serving(shop.router("a"), delivery_limit=3):
        handle = await desk.submit(Bind())
        await world.row(handle.id, "running")
        for _ in range(2):  # with the worker that then has the lease, three workers are lost
            await lose_worker(world, handle.id)
    await world.serve(shop.router("b"), delivery_limit=3)
    with pytest.raises(BusError, match="3 times"):
        await handle.result(timeout=60)
    record = await world.row(handle.id, "failed")
    assert record.failure is not None
    assert (record.failure.code, record.losses) == ("process_lost", 3)
    assert ("b", 1) not in shop.started


async def lose_worker(world: Durable, job_id: str) -> None:
    """Let the lease of a job expire, as if its worker had died, and another one claim it."""
    jobs = world.store.jobs
    queue = "bindery.jobs.bind.v1"
    [row] = [row for key, row in jobs._rows.items() if key.id == job_id]
    row.renew(0)
    claimed = await jobs.claim(queue, worker="dead", limit=1, lease=0.0)
    assert len(claimed) == 1


@durable
async def test_a_job_that_lost_two_workers_runs_alone(world: Durable) -> None:
    shop = Workshop()
    desk = await world.client()
    async with world.serving(shop.router("a"), stop_grace=0.1):
        poison = await desk.submit(Bind())
        await world.row(poison.id, "running")
        await lose_worker(world, poison.id)
    shop.started.clear()
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("bus.quarantine").addHandler(handler)
    try:
        await world.serve(shop.router("b"))
        other = await desk.submit(Bind())
        await world.row(poison.id, "running")
        await asyncio.sleep(10)
        assert await world.state(other.id) == "queued"  # it waits until the candidate has ended
        shop.end("b")
        assert (await poison.result(timeout=5)).by == "b"
        assert (await other.result(timeout=30)).by == "b"
    finally:
        logging.getLogger("bus.quarantine").removeHandler(handler)
    assert any("was lost with its process or connection 2 times" in each for each in messages)


@durable
async def test_a_stop_does_not_wait_for_a_store_that_goes_away_after_a_claim(
    world: Durable,
) -> None:
    store = world.watched()
    claim = world.store.jobs.claim

    async def claim_slowly(*args: object, **options: object) -> object:
        claimed = await claim(*args, **options)
        if claimed:
            await asyncio.sleep(3)  # the stop begins in this time
            store.jobs.refused = {*CALLS}
        return claimed

    world.store.jobs.claim = claim_slowly
    client, router = await world.client(), Workshop().router("a")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(100), world.serving(router, store=store, stop_grace=5):
        handle = await client.submit(Bind())
        await world.row(handle.id, "running")
        began = loop.time()
    assert loop.time() - began < 30
