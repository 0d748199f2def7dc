"""Attempts of durable jobs: policies, deadlines, dependencies, progress, and fair claims."""

import asyncio

import pytest

from bus import (
    BusError,
    Context,
    DeadlineExceeded,
    Dependency,
    Internal,
    Job,
    Message,
    RetryPolicy,
    Router,
    Unavailable,
    contract,
)
from bus.messaging.envelope import Progress
from bus.messaging.jobs.records import JobProgress
from tests.unit.runtime.jobs.durable import Durable, durable
from tests.unit.runtime.jobs.test_recording import listen


class Cut(Message):
    """Result of a job."""

    attempt: int


@contract("sawmill.cut", version=1)
class CutLog(Job[Cut]):
    """A job of the service with a store."""


@contract("sawmill.plane", version=1)
class Plane(Job[Cut]):
    """Another job of the service."""


@durable
async def test_no_attempt_starts_after_the_total_time_of_the_policy(world: Durable) -> None:
    router, starts = Router("sawmill"), []

    @router.job(CutLog, retry=RetryPolicy(attempts=100, first_delay=10, factor=1, total_time=35))
    async def cut(job: CutLog) -> Cut:
        starts.append(asyncio.get_running_loop().time())
        raise ValueError

    await world.serve(router)
    handle = await (await world.client()).submit(CutLog())
    with pytest.raises(BusError):
        await handle.result(timeout=600)
    assert len(starts) == 4  # after 0, 10, 20 and 30 s


@durable
async def test_a_permanent_error_ends_the_job_at_once(world: Durable) -> None:
    router, starts = Router("sawmill"), []

    @router.job(CutLog, retry=RetryPolicy(permanent=(KeyError,)))
    async def cut(job: CutLog) -> Cut:
        starts.append(1)
        raise KeyError

    await world.serve(router)
    handle = await (await world.client()).submit(CutLog())
    with pytest.raises(BusError):
        await handle.result(timeout=600)
    assert starts == [1]
    assert (await world.row(handle.id, "failed")).attempt == 1


@durable
async def test_an_attempt_ends_at_the_timeout_of_its_handler(world: Durable) -> None:
    router = Router("sawmill")

    @router.job(CutLog, timeout=5, retry=RetryPolicy(attempts=1))
    async def cut(job: CutLog) -> Cut:
        await asyncio.sleep(3600)
        raise AssertionError

    await world.serve(router)
    handle = await (await world.client()).submit(CutLog())
    with pytest.raises(BusError):
        await handle.result(timeout=6)
    record = await world.row(handle.id, "failed")
    assert record.failure is not None
    assert record.failure.code == "deadline_exceeded"


@durable
async def test_a_job_that_expired_before_its_attempt_fails_without_a_run(world: Durable) -> None:
    router, starts = Router("sawmill"), []

    @router.job(CutLog)
    async def cut(job: CutLog) -> Cut:
        starts.append(1)
        return Cut(attempt=1)

    async with world.serving(router):
        pass
    desk = await world._open.enter_async_context(world.bus("desk", message_ttl=20))
    handle = await desk.submit(CutLog())
    await asyncio.sleep(30)
    await world.serve(router)
    with pytest.raises(DeadlineExceeded, match="expired before it was handled"):
        await handle.result(timeout=5)
    record = await world.row(handle.id, "failed")
    assert record.failure is not None
    assert record.failure.reason.startswith("Expired: ")
    assert starts == []


@durable
async def test_a_dependency_that_is_down_uses_no_attempt_and_no_total_time(
    world: Durable,
) -> None:
    router, state = Router("sawmill"), {"up": False, "calls": 0}
    power = Dependency(
        name="power", failures=(ConnectionError,), consecutive_failures=2, probe_interval=30
    )

    @router.job(CutLog, dependency=power, retry=RetryPolicy(attempts=2, total_time=60))
    async def cut(job: CutLog, context: Context) -> Cut:
        state["calls"] += 1
        if not state["up"]:
            raise ConnectionError
        return Cut(attempt=context.envelope.attempt)

    store = world.watched()
    await world.serve(router, store=store)
    desk = await world.client()
    handles = [await desk.submit(CutLog()) for _ in range(5)]
    await asyncio.sleep(600)
    calls = state["calls"]
    assert 5 <= calls <= 40
    assert {await world.state(each.id) for each in handles} <= {"queued", "running", "retrying"}
    state["up"] = True
    for handle in handles:
        assert (await handle.result(timeout=120)).attempt <= 2
    rows = [await world.row(each.id, "succeeded") for each in handles]
    assert all(row.attempt <= 2 for row in rows)


@durable
async def test_a_job_that_always_fails_by_its_dependency_uses_its_attempts_in_the_end(
    world: Durable,
) -> None:
    router, calls = Router("sawmill"), []
    power = Dependency(
        name="voltage", failures=(ConnectionError,), consecutive_failures=3, probe_interval=5
    )

    @router.job(CutLog, dependency=power, retry=RetryPolicy(attempts=2))
    async def cut(job: CutLog) -> Cut:
        calls.append("poison")
        raise ConnectionError

    @router.job(Plane, dependency=power)
    async def plane(job: Plane) -> Cut:
        return Cut(attempt=1)

    await world.serve(router)
    desk = await world.client()
    handle = await desk.submit(CutLog())
    for _ in range(400):  # others show that the dependency is up
        await (await desk.submit(Plane())).result(timeout=60)
        await asyncio.sleep(1)
        if await world.state(handle.id) == "failed":
            break
    with pytest.raises(BusError):
        await handle.result(timeout=5)
    assert await world.state(handle.id) == "failed"


@durable
async def test_progress_is_numbered_stored_twice_a_second_and_its_last_update_always(
    world: Durable,
) -> None:
    router, store = Router("sawmill"), world.watched()

    @router.job(CutLog)
    async def cut(job: CutLog, context: Context) -> Cut:
        for step in range(100):
            await context.progress(step / 100, f"step {step}")
            await asyncio.sleep(0.05)
        await context.progress(1, "done")
        return Cut(attempt=1)

    await world.serve(router, store=store)
    handle = await (await world.client()).submit(CutLog())
    updates: list[Progress] = [each async for each in handle.updates()]
    assert [each.number for each in updates] == list(range(1, 102))
    record = await world.row(handle.id, "succeeded")
    assert record.progress is not None
    assert (record.progress.number, record.progress.progress) == (101, 1.0)
    assert record.progress.update is not None
    assert b'"done"' in record.progress.update.body
    assert 9 <= store.jobs.count("report") <= 13


@durable
async def test_progress_that_the_store_refuses_does_not_fail_the_job(world: Durable) -> None:
    router, report = Router("sawmill"), world.store.jobs.report

    @router.job(CutLog)
    async def cut(job: CutLog, context: Context) -> Cut:
        await context.progress(0.5)
        await asyncio.sleep(1)
        await context.progress(0.75)
        await asyncio.sleep(1)
        await context.progress(1)
        return Cut(attempt=1)

    async def picky(attempt: object, progress: JobProgress) -> object:
        if progress.number != 2:
            raise Internal
        return await report(attempt, progress)

    world.store.jobs.report = picky
    lines = listen("bus.jobs")
    await world.serve(router)
    handle = await (await world.client()).submit(CutLog())
    assert (await handle.result(timeout=30)).attempt == 1
    record = await world.row(handle.id, "succeeded")
    assert record.progress is not None
    assert record.progress.number == 2
    assert (
        lines == ["the progress of a job could not be stored (Internal); its handler goes on"] * 2
    )


@durable
async def test_the_numbers_of_progress_go_on_in_the_next_attempt(world: Durable) -> None:
    router = Router("sawmill")

    @router.job(CutLog, retry=RetryPolicy(delays=(1,)))
    async def cut(job: CutLog, context: Context) -> Cut:
        await context.progress(0.5)
        if context.envelope.attempt == 1:
            raise ValueError
        return Cut(attempt=2)

    await world.serve(router)
    handle = await (await world.client()).submit(CutLog())
    updates = [each async for each in handle.updates()]
    assert [each.number for each in updates] == [1, 2, 3]
    assert [each.error for each in updates] == [None, "internal", None]
    assert updates[1].note.startswith("attempt 1 of 2 failed, the next is in 1 s")


@durable
async def test_a_process_claims_at_most_its_free_slots(world: Durable) -> None:
    router, end, running = Router("sawmill"), asyncio.Event(), set()

    @router.job(CutLog, concurrency=3)
    async def cut(job: CutLog, context: Context) -> Cut:
        running.add(context.envelope.id)
        await end.wait()
        running.discard(context.envelope.id)
        return Cut(attempt=1)

    await world.serve(router)
    desk = await world.client()
    handles = [await desk.submit(CutLog()) for _ in range(20)]
    await asyncio.sleep(10)
    states = [await world.state(each.id) for each in handles]
    assert states.count("running") == 3
    assert states.count("queued") == 17
    assert len(running) == 3
    end.set()
    for handle in handles:
        await handle.result(timeout=30)


@durable
async def test_a_full_queue_does_not_delay_another_queue_of_the_process(world: Durable) -> None:
    router, end = Router("sawmill"), asyncio.Event()

    @router.job(CutLog, concurrency=2)
    async def cut(job: CutLog) -> Cut:
        await end.wait()
        return Cut(attempt=1)

    @router.job(Plane, concurrency=1)
    async def plane(job: Plane) -> Cut:
        return Cut(attempt=1)

    await world.serve(router)
    desk = await world.client()
    for _ in range(50):
        await desk.submit(CutLog())
    began = asyncio.get_running_loop().time()
    for _ in range(5):
        await (await desk.submit(Plane())).result(timeout=5)
    assert asyncio.get_running_loop().time() - began < 1
    end.set()


@durable
async def test_another_instance_without_notifications_finds_a_job_by_polling(
    world: Durable,
) -> None:
    def router_of(instance: str, end: asyncio.Event) -> Router:
        router = Router("sawmill")

        @router.job(CutLog, concurrency=1)
        async def cut(job: CutLog) -> Cut:
            await end.wait()
            return Cut(attempt=1 if instance == "a" else 2)

        return router

    async def without_notifications(queue: str, *, timeout: float) -> bool:
        return False

    world.store.jobs.changed = without_notifications
    end, at_once = asyncio.Event(), asyncio.Event()
    at_once.set()
    desk = await world.client()
    await world.serve(router_of("a", end))
    first = await desk.submit(CutLog())
    await world.row(first.id, "running")
    second = await desk.submit(CutLog())
    await world.row(second.id, "queued")
    await world.serve(router_of("b", at_once))
    assert (await second.result(timeout=4)).attempt == 2
    third = await desk.submit(CutLog())
    assert (await third.result(timeout=4)).attempt == 2
    end.set()


@durable
async def test_a_thousand_jobs_of_fifty_clients_all_end_right(world: Durable) -> None:
    failed: set[str] = set()

    def router_of() -> Router:
        router = Router("sawmill")

        @router.job(CutLog, concurrency=20, retry=RetryPolicy(attempts=3))
        async def cut(job: CutLog, context: Context) -> Cut:
            if int(context.envelope.id[:4], 16) % 20 == 0 and context.envelope.attempt == 1:
                failed.add(context.envelope.id)
                raise Unavailable("not yet")
            return Cut(attempt=context.envelope.attempt)

        return router

    for _ in range(4):
        await world.serve(router_of())
    clients = [await world.client(f"desk{number}") for number in range(50)]
    handles = [await client.submit(CutLog()) for client in clients for _ in range(20)]
    results = [await handle.result(timeout=60) for handle in handles]
    assert len(results) == 1000
    repeated = {
        handle.id for handle, each in zip(handles, results, strict=True) if each.attempt == 2
    }
    assert repeated == failed
    assert failed
    counts = [(state, number) for _, state, number, _ in await world.store.jobs.counts()]
    assert counts == [("succeeded", 1000)]
