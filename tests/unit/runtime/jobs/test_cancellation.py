"""Cancellation of durable jobs, in each state and with handlers of each kind."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from bus import Bus, Cancelled, Context, Dependency, Job, Message, RetryPolicy, Router, contract
from bus.messaging.jobs.records import CancelRequest, JobKey
from bus.messaging.store_instruments import JOBS_STALE_WRITES
from tests.unit.runtime.jobs.durable import Durable, durable
from tests.unit.runtime.jobs.test_leases import counted
from tests.unit.runtime.jobs.test_recording import listen


class Carved(Message):
    """Result of a job."""

    whole: bool


@contract("carver.carve", version=1)
class Carve(Job[Carved]):
    """A job of the service with a store."""


Work = Callable[[Context], Awaitable[Carved]]


def carver(work: Work, *, concurrency: int = 2, retry: RetryPolicy | None = None) -> Router:
    """Return a router that runs `work` for each job."""
    router = Router("carver")

    @router.job(Carve, concurrency=concurrency, retry=retry, timeout=1500)
    async def carve(job: Carve, context: Context) -> Carved:
        return await work(context)

    return router


async def forever(context: Context) -> Carved:
    """Work without an end, and without a look at the request."""
    await asyncio.sleep(1400)
    return Carved(whole=True)


async def cancelled_result(world: Durable, handle: object, match: str = "by desk: wrong") -> None:
    """Check that the result of a job is its cancellation."""
    with pytest.raises(Cancelled, match=match):
        await handle.result(timeout=30)  # type: ignore[attr-defined]


def now() -> float:
    """Return the time of the loop."""
    return asyncio.get_running_loop().time()


def slots_of(bus: Bus) -> int:
    """Return the free slots of the handler."""
    [consumer] = [each for each in bus._server.consumers if each.name.endswith("carve.v1")]
    return consumer.state.slots.free


@durable
async def test_a_queued_job_is_cancelled_at_once_and_never_runs(world: Durable) -> None:
    runs: list[str] = []

    async def note(context: Context) -> Carved:
        runs.append(context.envelope.id)
        return await forever(context)

    await world.serve(carver(note, concurrency=1))
    desk = await world.client()
    first, second = await desk.submit(Carve()), await desk.submit(Carve())
    await world.row(first.id, "running")
    await world.row(second.id, "queued")
    assert (await second.cancel(reason="wrong")).state == "cancelled"
    await cancelled_result(world, second)
    await first.cancel(reason="wrong")
    await asyncio.sleep(30)
    assert runs == [first.id]


@durable
async def test_a_running_job_sees_the_request_and_ends_by_itself(world: Durable) -> None:
    seen: list[float] = []

    async def polite(context: Context) -> Carved:
        assert not context.cancelled
        await context.wait_cancelled()
        seen.append(now())
        assert context.cancelled
        raise ValueError("it cleans up, and ends with an error")

    bus = await world.serve(carver(polite, retry=RetryPolicy(attempts=5)))
    handle = await (await world.client()).submit(Carve())
    await world.row(handle.id, "running")
    began = now()
    assert (await handle.cancel(reason="wrong")).state == "running"
    await cancelled_result(world, handle)
    assert seen[0] - began <= 1.1
    record = await world.row(handle.id, "cancelled")
    assert record.failure is not None  # its own error
    assert record.attempt == 1
    await asyncio.sleep(1)  # virtual time: the slot is released after the row is written
    assert slots_of(bus) == 2


@durable
async def test_a_handler_that_returns_after_the_request_has_succeeded(world: Durable) -> None:
    async def almost_done(context: Context) -> Carved:
        await context.wait_cancelled()
        return Carved(whole=True)

    await world.serve(carver(almost_done))
    handle = await (await world.client()).submit(Carve())
    await world.row(handle.id, "running")
    await handle.cancel(reason="wrong")
    assert (await handle.result(timeout=5)).whole
    assert (await world.row(handle.id, "succeeded")).cancel is not None


@durable
async def test_a_result_that_waits_for_the_store_longer_than_the_grace_is_kept(
    world: Durable,
) -> None:
    store = world.watched()

    async def done(context: Context) -> Carved:
        await context.wait_cancelled()
        store.jobs.refused = {"end", "record", "claim"}
        return Carved(whole=True)

    await world.serve(carver(done), store=store, cancel_grace=5, job_lease=60)
    handle = await (await world.client()).submit(Carve())
    await world.row(handle.id, "running")
    request = CancelRequest(by="desk", reason="wrong", at=1.0)
    await world.store.jobs.cancel(JobKey("desk", handle.id), request)
    await asyncio.sleep(40)
    assert await world.state(handle.id) == "running"
    store.jobs.refused = set()
    await world.row(handle.id, "succeeded")
    assert (await handle.result(timeout=30)).whole


@durable
async def test_a_handler_that_does_not_look_is_cancelled_after_the_grace(world: Durable) -> None:
    ended: list[float] = []

    async def blind(context: Context) -> Carved:
        try:
            return await forever(context)
        finally:
            ended.append(now())

    bus = await world.serve(carver(blind), cancel_grace=7)
    handle = await (await world.client()).submit(Carve())
    await world.row(handle.id, "running")
    began = now()
    await handle.cancel(reason="wrong")
    await cancelled_result(world, handle)
    assert 7 <= ended[0] - began <= 8.5
    record = await world.row(handle.id, "cancelled")
    assert record.result is not None
    assert record.result.error == "cancelled"
    await asyncio.sleep(0.1)
    assert slots_of(bus) == 2


@durable
async def test_a_handler_that_swallows_its_cancellation_gives_its_slot_back(
    world: Durable,
) -> None:
    end = asyncio.Event()

    async def stubborn(context: Context) -> Carved:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return Carved(whole=True)

    try:
        lines = listen("bus.jobs")
        bus = await world.serve(carver(stubborn, concurrency=1), cancel_grace=5)
        desk = await world.client()
        handle = await desk.submit(Carve())
        await world.row(handle.id, "running")
        await handle.cancel(reason="wrong")
        await asyncio.sleep(14)
        assert slots_of(bus) == 0
        await asyncio.sleep(3)
        await world.row(handle.id, "cancelled")
        assert slots_of(bus) == 1
        [line] = [each for each in lines if "has not ended 10 s after its cancellation" in each]
        assert "test_cancellation.py" in line
        assert "stubborn" in line
        assert bus.report.pauses == {"stuck-handler"}
        assert bus.ready
        other = await desk.submit(Carve())  # the free slot is used
        await world.row(other.id, "running")
    finally:
        end.set()
    # The late success is refused and counted, and the degradation ends.
    assert (await other.result(timeout=5)).whole
    await asyncio.sleep(0.5)
    assert await world.state(handle.id) == "cancelled"
    assert counted(bus, JOBS_STALE_WRITES.name) == 1
    assert bus.report.pauses == frozenset()
    assert slots_of(bus) == 1


@durable
async def test_a_retrying_job_is_cancelled_at_once(world: Durable) -> None:
    runs: list[int] = []

    async def fail(context: Context) -> Carved:
        runs.append(context.envelope.attempt)
        raise ValueError

    await world.serve(carver(fail, retry=RetryPolicy(delays=(60, 60))))
    handle = await (await world.client()).submit(Carve())
    await world.row(handle.id, "retrying")
    assert (await handle.cancel(reason="wrong")).state == "cancelled"
    await cancelled_result(world, handle)
    await asyncio.sleep(200)
    assert runs == [1]


@durable
async def test_a_late_failure_never_starts_a_retry_of_a_cancelled_job(world: Durable) -> None:
    fails, runs = asyncio.Event(), list[int]()

    async def fail_late(context: Context) -> Carved:
        runs.append(context.envelope.attempt)
        await fails.wait()
        raise ValueError

    store = world.watched()
    await world.serve(carver(fail_late), store=store)
    desk = await world.client()
    handle = await desk.submit(Carve())
    await world.row(handle.id, "running")
    # The worker does not know the request when its handler fails.
    store.jobs.refused = {"renew", "cancel_requests"}
    await handle.cancel(reason="wrong")
    fails.set()
    await world.row(handle.id, "cancelled")
    await asyncio.sleep(100)
    assert runs == [1]
    await cancelled_result(world, handle)


@durable
async def test_the_last_failure_after_a_request_is_a_cancellation(world: Durable) -> None:
    fails = asyncio.Event()

    async def fail_late(context: Context) -> Carved:
        await fails.wait()
        raise ValueError

    store = world.watched()
    await world.serve(carver(fail_late, retry=RetryPolicy(attempts=1)), store=store)
    handle = await (await world.client()).submit(Carve())
    await world.row(handle.id, "running")
    store.jobs.refused = {"renew", "cancel_requests"}
    await handle.cancel(reason="wrong")
    fails.set()
    await world.row(handle.id, "cancelled")
    await cancelled_result(world, handle)


@durable
async def test_a_job_of_a_draining_worker_is_cancelled(world: Durable) -> None:
    stopped = asyncio.Event()

    async def until_told(context: Context) -> Carved:
        await context.wait_cancelled()
        stopped.set()
        raise ValueError

    desk = await world.client()
    serving = world.serving(carver(until_told), stop_grace=60)
    await serving.__aenter__()
    handle = await desk.submit(Carve())
    await world.row(handle.id, "running")
    draining = asyncio.create_task(serving.__aexit__(None, None, None))
    await asyncio.sleep(5)
    assert not draining.done()
    await world.store.jobs.cancel((await world.find(handle.id)).key, request())  # type: ignore[union-attr]
    await asyncio.wait_for(draining, 10)
    assert stopped.is_set()
    assert await world.state(handle.id) == "cancelled"


@durable
async def test_a_stop_with_a_request_cancels_the_job_instead_of_returning_it(
    world: Durable,
) -> None:
    async with world.serving(carver(forever), stop_grace=1, cancel_grace=600):
        handle = await (await world.client()).submit(Carve())
        await world.row(handle.id, "running")
        await handle.cancel(reason="wrong")
        await asyncio.sleep(2)
        assert await world.state(handle.id) == "running"
    assert await world.state(handle.id) == "cancelled"


@durable
async def test_a_job_whose_worker_is_away_is_cancelled_when_its_lease_has_expired(
    world: Durable,
) -> None:
    store = world.watched()
    await world.serve(carver(forever), store=store)
    desk = await world.client()
    handle = await desk.submit(Carve())
    await world.row(handle.id, "running")
    store.jobs.refused = {"claim", "renew", "end", "report", "record", "cancel_requests"}
    assert (await handle.cancel(reason="wrong")).state == "running"
    await world.serve(carver(forever))
    await asyncio.sleep(33)
    record = await world.row(handle.id, "cancelled")
    assert record.losses in {0, 1}
    await cancelled_result(world, handle)


@durable
async def test_a_finished_job_does_not_change_and_its_status_says_so(world: Durable) -> None:
    async def quick(context: Context) -> Carved:
        return Carved(whole=True)

    await world.serve(carver(quick))
    handle = await (await world.client()).submit(Carve())
    await handle.result(timeout=5)
    assert (await handle.cancel(reason="wrong")).state == "succeeded"
    assert (await world.row(handle.id, "succeeded")).cancel is None


@durable
async def test_a_job_that_a_dependency_holds_is_cancelled_without_the_grace(
    world: Durable,
) -> None:
    router = Router("carver")
    wood = Dependency(
        name="wood", failures=(ConnectionError,), consecutive_failures=1, probe_interval=600
    )

    @router.job(Carve, dependency=wood, concurrency=3)
    async def carve(job: Carve) -> Carved:
        raise ConnectionError

    await world.serve(router)
    desk = await world.client()
    handles = [await desk.submit(Carve()) for _ in range(3)]
    await asyncio.sleep(5)
    for handle in handles:
        await handle.cancel(reason="wrong")
    await asyncio.sleep(2)
    assert [await world.state(each.id) for each in handles] == ["cancelled"] * 3


@durable
async def test_a_handler_in_a_thread_can_read_the_request(world: Durable) -> None:
    seen: list[bool] = []

    async def threaded(context: Context) -> Carved:
        await context.wait_cancelled()
        seen.append(await asyncio.to_thread(lambda: context.cancelled))
        raise ValueError

    await world.serve(carver(threaded))
    handle = await (await world.client()).submit(Carve())
    await world.row(handle.id, "running")
    await handle.cancel(reason="wrong")
    await world.row(handle.id, "cancelled")
    assert seen == [True]


@durable
async def test_a_job_of_a_service_without_a_store_is_never_cancelled(world: Durable) -> None:
    seen: list[bool] = []

    async def look(context: Context) -> Carved:
        seen.append(context.cancelled)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(context.wait_cancelled(), 5)
        return Carved(whole=True)

    async with world.bus("carver") as bus, bus.serving(carver(look)):
        handle = await (await world.client()).submit(Carve())
        assert (await handle.result(timeout=30)).whole
    assert seen == [False]


def request() -> CancelRequest:
    """Return a request of the submitter."""
    return CancelRequest(by="desk", reason="wrong", at=0.0)


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Do not repeat the errors of the handlers in the output. `conftest` restores the level."""
    logging.getLogger("bus.messages").setLevel(logging.CRITICAL)
