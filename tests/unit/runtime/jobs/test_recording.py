"""The way in: no message is acked before its row is committed."""

import asyncio
import logging
from dataclasses import replace

import pytest

from bus import AlreadyExists, Bus, Context, Job, Message, NotFound, Router, contract
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import JobKey, NewJob
from bus.messaging.topology.addresses import Address
from bus.transports.memory import MemoryTransport
from bus.transports.wire_format import encode
from tests.unit.runtime.jobs.durable import CALLS, Durable, durable


class Framed(Message):
    """Result of a job."""

    number: int


@contract("framer.frame", version=1)
class Frame(Job[Framed]):
    """A job of the service with a store."""

    number: int = 0


QUEUE = "framer.jobs.frame.v1"


def router_of(runs: list[int], *, concurrency: int = 4) -> Router:
    """Return a router that notes the number of each job that it runs."""
    router = Router("framer")

    @router.job(Frame, concurrency=concurrency)
    async def frame(job: Frame) -> Framed:
        runs.append(job.number)
        if job.number < 0:
            raise NotFound("no frame")
        return Framed(number=job.number)

    return router


async def repeat(world: Durable, job: Envelope) -> None:
    """Send a copy of a message to its work queue, as a replay or another publish does."""
    wire = encode(job)
    world.broker.publish(
        wire, Address(exchange="", routing_key=QUEUE, mandatory=True, confirmed=True)
    )
    await asyncio.sleep(0.5)


@durable
async def test_the_jobs_of_one_turn_are_recorded_by_one_call(world: Durable) -> None:
    runs: list[int] = []
    desk = await world.client()
    async with world.serving(router_of(runs)):
        pass  # it declares the queue
    handles = [await desk.submit(Frame(number=each)) for each in range(100)]
    store = world.watched()
    await world.serve(router_of(runs), store=store)
    for handle in handles:
        await handle.result(timeout=30)
    assert sorted(runs) == list(range(100))
    records = [jobs for name, jobs in store.jobs.calls if name == "record"]
    assert sum(len(jobs) for jobs in records) == 100
    assert len(records) <= 10


@durable
async def test_a_recorded_job_costs_at_most_one_call_and_its_run_at_most_four_in_all(
    world: Durable,
) -> None:
    router, store = Router("framer"), world.watched()

    @router.job(Frame, concurrency=2)  # with one slot, each end is followed by a claim for more
    async def frame(job: Frame, context: Context) -> Framed:
        await context.progress(0.5)
        return Framed(number=job.number)

    await world.serve(router, store=store)
    desk = await world.client()
    await (await desk.submit(Frame())).result(timeout=5)  # it ends the start with one slot
    await asyncio.sleep(0.5)
    store.jobs.calls.clear()
    for number in range(20):  # one by one, so that no call has two jobs
        handle = await desk.submit(Frame(number=number))
        await handle.result(timeout=5)
    counts = {name: store.jobs.count(name) for name in sorted(CALLS)}
    assert counts["record"] <= 20
    assert counts["end"] <= 20
    assert sum(counts.values()) <= 4 * 20 + 1  # the feed can look once before the first job


@durable
async def test_a_copy_of_a_known_job_is_acked_and_does_not_run_again(
    world: Durable,
) -> None:
    runs: list[int] = []
    await world.serve(router_of(runs))
    desk = await world.client()
    handle = await desk.submit(Frame(number=1))
    await handle.result(timeout=5)
    record = await world.row(handle.id, "succeeded")
    assert record.envelope is not None
    lines = listen("bus.jobs")
    await repeat(world, record.envelope)
    assert runs == [1]
    assert world.broker.depth(QUEUE) == 0
    assert any("is a copy of a job that is recorded already" in line for line in lines)


@durable
async def test_a_copy_of_a_failed_job_does_not_start_it_again(world: Durable) -> None:
    runs: list[int] = []
    await world.serve(router_of(runs))
    desk = await world.client()
    handle = await desk.submit(Frame(number=-1))
    with pytest.raises(NotFound):
        await handle.result(timeout=5)
    record = await world.row(handle.id, "failed")
    assert record.envelope is not None
    await repeat(world, record.envelope)
    assert runs == [-1]
    assert (await world.row(handle.id, "failed")).life == 1


@durable
async def test_two_submitters_with_the_same_id_have_two_jobs(world: Durable) -> None:
    runs: list[int] = []
    await world.serve(router_of(runs))
    desk = await world.client()
    handle = await desk.submit(Frame(number=1))
    await handle.result(timeout=5)
    record = await world.row(handle.id, "succeeded")
    assert record.envelope is not None
    await repeat(world, record.envelope.replace(source="counter"))
    assert runs == [1, 1]
    assert await world.find(handle.id, "counter") is not None


@durable
async def test_a_message_that_cannot_be_read_becomes_a_dead_letter_and_no_row(
    world: Durable,
) -> None:
    runs: list[int] = []
    await world.serve(router_of(runs))
    desk = await world.client()
    handle = await desk.submit(Frame(number=1))
    await handle.result(timeout=5)
    record = await world.row(handle.id, "succeeded")
    assert record.envelope is not None
    wire = encode(record.envelope.replace(id="unreadable"))
    broken = replace(wire, headers={**wire.headers, "attempt": "first"})
    world.broker.publish(broken, Address(exchange="", routing_key=QUEUE))
    for _ in range(100):
        await asyncio.sleep(1)
        if world.broker.depth(f"{QUEUE}.dead"):
            break
    assert world.broker.depth(f"{QUEUE}.dead") == 1
    assert await world.find("unreadable") is None
    assert runs == [1]


@durable
async def test_nothing_is_acked_while_the_store_is_away_and_all_jobs_run_when_it_is_back(
    world: Durable,
) -> None:
    runs: list[int] = []
    store = world.watched()
    lines = listen("bus.jobs")
    bus = await world.serve(router_of(runs), store=store)
    desk = await world.client()
    store.jobs.refused = set(CALLS)
    handles = [await desk.submit(Frame(number=each)) for each in range(10)]
    await asyncio.sleep(30)
    assert world.broker.unacked(QUEUE) == 10
    assert runs == []
    assert state_of(bus) == "not-ready"
    was_away = bus.report.is_store_away
    assert was_away
    warnings = [line for line in lines if "the store is away" in line]
    assert len(warnings) == 1, lines
    store.jobs.refused = set()
    for handle in handles:
        await handle.result(timeout=30)
    assert sorted(runs) == list(range(10))
    assert world.broker.unacked(QUEUE) == 0
    assert state_of(bus) == "ready"
    is_away = bus.report.is_store_away
    assert not is_away
    assert any("the store is back after 30" in line for line in lines)


@durable
async def test_a_running_handler_goes_on_without_the_store_and_its_end_is_written_later(
    world: Durable,
) -> None:
    router, end, ended = Router("framer"), asyncio.Event(), asyncio.Event()

    @router.job(Frame, concurrency=1)
    async def frame(job: Frame) -> Framed:
        await end.wait()
        ended.set()
        return Framed(number=job.number)

    store = world.watched()
    bus = await world.serve(router, store=store)
    desk = await world.client()
    handle = await desk.submit(Frame(number=7))
    await world.row(handle.id, "running")
    store.jobs.refused = set(CALLS)
    end.set()
    await ended.wait()
    await asyncio.sleep(25)
    [consumer] = bus._server.consumers
    assert consumer.state.slots.free == 0  # the slot is released only after the end
    store.jobs.refused = set()
    assert (await handle.result(timeout=5)).number == 7
    record = await world.row(handle.id, "succeeded")
    assert (record.attempt, record.losses) == (1, 0)
    await asyncio.sleep(0.1)
    assert consumer.state.slots.free == 1


@durable
async def test_an_end_with_a_lost_answer_is_repeated_and_the_job_runs_once(
    world: Durable,
) -> None:
    runs: list[int] = []
    store = world.watched()
    await world.serve(router_of(runs), store=store)
    desk = await world.client()
    store.jobs.lost_answers = {"end", "record"}
    handle = await desk.submit(Frame(number=1))
    await asyncio.sleep(5)
    store.jobs.lost_answers = set()
    assert (await handle.result(timeout=5)).number == 1
    assert runs == [1]


@durable
async def test_a_stop_while_the_store_is_away_returns_the_messages_to_the_queue(
    world: Durable,
) -> None:
    runs: list[int] = []
    store = world.watched()
    desk = await world.client()
    async with world.serving(router_of(runs), store=store):
        store.jobs.refused = set(CALLS)
        handle = await desk.submit(Frame(number=1))
        await asyncio.sleep(3)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3
    assert world.broker.depth(QUEUE) == 1
    await world.serve(router_of(runs))
    assert (await handle.result(timeout=5)).number == 1


@durable
async def test_one_job_that_the_store_refuses_does_not_stop_the_others(world: Durable) -> None:
    runs: list[int] = []
    record = world.store.jobs.record

    async def picky(jobs: object) -> object:
        if any(b'"number":13' in job.envelope.body for job in jobs):  # type: ignore[attr-defined]
            raise ValueError
        return await record(jobs)

    world.store.jobs.record = picky
    desk = await world.client()
    async with world.serving(router_of(runs)):
        pass
    handles = [await desk.submit(Frame(number=each)) for each in range(11, 16)]
    await world.serve(router_of(runs))
    for number, handle in zip(range(11, 16), handles, strict=True):
        if number != 13:
            assert (await handle.result(timeout=30)).number == number
    assert sorted(runs) == [11, 12, 14, 15]


@durable
async def test_a_job_with_the_id_of_another_job_becomes_a_dead_letter_with_the_reason(
    world: Durable,
) -> None:
    runs: list[int] = []
    desk = await world.client()
    async with world.serving(router_of(runs)):
        pass
    handle = await desk.submit(Frame(number=1))
    key = JobKey("desk", handle.id)
    other = Envelope(id=handle.id, type="framer.bind.v1", role="job", source="desk")
    await world.store.jobs.record([NewJob(key=key, queue="framer.jobs.bind.v1", envelope=other)])
    await world.serve(router_of(runs))
    with pytest.raises(AlreadyExists, match="with the same id to the queue"):
        await handle.result(timeout=5)
    assert world.broker.depth(f"{QUEUE}.dead") == 1
    assert world.broker.depth(QUEUE) == 0
    assert runs == []


@durable
async def test_a_service_without_a_store_has_neither_recorder_nor_rows(world: Durable) -> None:
    runs: list[int] = []
    async with world.bus("framer") as bus, bus.serving(router_of(runs)):
        desk: Bus = await world.client()
        handle = await desk.submit(Frame(number=1))
        assert (await handle.result(timeout=5)).number == 1
        assert all(each.prefetch == 4 for each in bus._server.consumers)
        assert isinstance(bus._server.consumers[0]._source, MemoryTransport)
    assert await world.find(handle.id) is None


def state_of(bus: Bus) -> str:
    """Return the state that a bus reports."""
    return bus.report.state().state


def listen(logger: str) -> list[str]:
    """Return the list that receives the messages of a logger until the end of the test."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger(logger)
    log.setLevel(logging.DEBUG)
    log.handlers = [handler]
    return lines
