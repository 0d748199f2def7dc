"""Questions about durable jobs, from other processes of the submitter and from other services."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bus.errors import (
    BusError,
    Cancelled,
    ConfigurationError,
    ContractError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from bus.messaging.jobs.markers import new_marker
from bus.messaging.jobs.records import JobKey
from bus.messaging.topology.addresses import replay_address
from bus.runtime.bus import Bus
from bus.runtime.jobs import answers, beats, question_endpoints
from bus.testing import wall_clock
from tests.unit.ledger import GetTotal
from tests.unit.runtime.jobs.archive import Copied, CopyPages, ScanPages, archive
from tests.unit.runtime.jobs.durable import Durable, durable
from tests.unit.runtime.jobs.held_store import HeldStore

COPY_QUEUE = "archive.jobs.copy.v1"


async def error_of(call: Any) -> BusError:
    with pytest.raises(BusError) as caught:
        await call
    return caught.value


@durable
async def test_another_process_of_the_submitter_reads_status_progress_and_result(
    world: Durable,
) -> None:
    gate = asyncio.Event()
    await world.serve(archive(gate))
    submitter, other = await world.client(), await world.client()
    job = await submitter.submit(CopyPages(pages=7))
    await world.row(job.id, "running")
    handle = other.job(CopyPages, job.id)
    updates = handle.updates()
    first = await anext(updates)
    assert (first.progress, first.note, first.number) == (0.25, "begun", 1)
    status = await handle.status()
    assert (status.state, status.attempt, status.life) == ("running", 1, 1)
    assert (status.progress, status.progress_number, status.has_ended) == (0.25, 1, False)
    gate.set()
    assert await handle.result(timeout=30) == Copied(pages=7)
    assert [each async for each in updates] == []
    status = await handle.status()
    assert (status.state, status.submitter, status.code) == ("succeeded", "desk", None)


@durable
async def test_updates_after_a_number_are_only_the_later_ones(world: Durable) -> None:
    await world.serve(archive())
    client = await world.client()
    job = await client.submit(CopyPages())
    await job.result(timeout=30)
    known = [each.number async for each in client.job(CopyPages, job.id).updates()]
    later = [each.number async for each in client.job(CopyPages, job.id).updates(after=1)]
    assert (known, later) == ([1], [])
    assert [each.number async for each in job.updates(after=1)] == []


@durable
async def test_a_job_that_waits_behind_a_busy_worker_is_queued(world: Durable) -> None:
    gate = asyncio.Event()
    await world.serve(archive(gate))
    client = await world.client()
    running = await client.submit(CopyPages())
    waiting = await client.submit(CopyPages())
    await world.row(running.id, "running")
    assert (await waiting.status()).state == "queued"
    gate.set()
    assert (await waiting.result(timeout=30)).pages == 1


@durable
async def test_a_job_that_was_submitted_just_now_is_never_unknown(world: Durable) -> None:
    held = HeldStore(world.store)
    async with world.serving(archive(), store=held):
        client = await world.client()
        job = await client.submit(CopyPages())
        asked = asyncio.create_task(client.job(CopyPages, job.id).status())
        await asyncio.sleep(5)
        assert held.jobs.waiting == 1
        assert not asked.done()
        held.jobs.gate.set()
        assert (await asked).state in {"queued", "running", "succeeded"}


@durable
async def test_the_state_of_a_job_that_is_recorded_while_it_is_asked_for_comes_at_once(
    world: Durable,
) -> None:
    held = HeldStore(world.store)
    async with world.serving(archive(), store=held):
        client = await world.client()
        job = await client.submit(CopyPages())
        asked = asyncio.create_task(job.status())
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        held.jobs.gate.set()
        await asked
        assert loop.time() - started < 0.2


@durable
async def test_a_job_that_never_was_is_not_found_within_a_few_seconds(world: Durable) -> None:
    for _ in range(2):
        await world.serve(archive())
    client = await world.client()
    loop = asyncio.get_running_loop()
    started = loop.time()
    error = await error_of(client.job(CopyPages, "never").status())
    assert type(error) is NotFound
    assert str(error) == (
        "archive.copy.v1 (job never): the service has no such job of the submitter 'desk'. "
        "Check the id, and the name of the service that submitted the job. Another service needs "
        "a right to its jobs (`jobs` in the grants)."
    )
    assert loop.time() - started < 7
    assert type(await error_of(client.job(CopyPages, "never").result(timeout=60))) is NotFound
    assert type(await error_of(client.job(CopyPages, "never").cancel())) is NotFound
    await asyncio.sleep(10)  # for copies of the questions at the other instance
    markers = [each for each in world.store._beats if each.startswith("marker:")]
    assert (markers, world.broker.depth(COPY_QUEUE)) == ([], 0)


@durable
async def test_an_instance_that_has_not_recorded_its_deliveries_makes_the_answer_unavailable(
    world: Durable,
) -> None:
    held = HeldStore(world.store)
    async with world.serving(archive(), store=held):
        client = await world.client()
        await client.submit(ScanPages())  # in the hands of the frozen recorder
        await asyncio.sleep(1)
        await world.serve(archive())
        error = await error_of(client.job(CopyPages, "never").status())
        assert type(error) is Unavailable
        assert "cannot tell yet whether it has the job" in str(error)
        held.jobs.gate.set()
        await asyncio.sleep(5)
        assert type(await error_of(client.job(CopyPages, "never").status())) is NotFound


@durable
async def test_a_service_that_has_no_store_or_does_not_run_is_unavailable_with_the_remedy(
    world: Durable,
) -> None:
    client = await world.client()
    handle = client.job(CopyPages, "1")
    for ask in (handle.status, handle.cancel, handle.result):
        error = await error_of(ask())
        assert type(error) is Unavailable
        assert str(error).startswith("archive.copy.v1 (job 1): no instance of 'archive' answers")
        assert "set its BUS_STORE" in str(error)
    async with world.bus("archive") as bus, bus.serving(archive()):
        job = await client.submit(CopyPages(pages=3))
        assert type(await error_of(job.status())) is Unavailable
        assert await job.result(timeout=30) == Copied(pages=3)


@durable
async def test_the_class_of_another_job_is_refused_by_name(world: Durable) -> None:
    await world.serve(archive())
    client = await world.client()
    job = await client.submit(CopyPages())
    await job.result(timeout=30)
    error = await error_of(client.job(ScanPages, job.id).status())
    assert type(error) is FailedPrecondition
    assert "(job " + job.id + "): the job with this id has the type archive.copy.v1" in str(error)


@durable
async def test_a_result_that_retention_has_removed_is_said_with_the_time_of_its_end(
    world: Durable,
) -> None:
    await world.serve(archive())
    client = await world.client()
    job = await client.submit(CopyPages())
    await job.result(timeout=30)
    ended = (await job.status()).ended_at or 0
    await world.store.jobs.prune("succeeded", ended_before=ended + 1, limit=10, now=ended + 1)
    handle = client.job(CopyPages, job.id)
    error = await error_of(handle.result(timeout=30))
    assert type(error) is FailedPrecondition
    assert "the job has succeeded, but its result was removed" in str(error)
    assert "(it ended at 20" in str(error)
    assert (await handle.status()).state == "succeeded"


@durable
async def test_the_error_of_a_failed_job_is_read_by_any_process(world: Durable) -> None:
    await world.serve(archive())
    client = await world.client()
    job = await client.submit(CopyPages(pages=-1))
    error = await error_of(client.job(CopyPages, job.id).result(timeout=30))
    assert type(error) is InvalidArgument
    assert str(error) == f"archive.copy.v1 (job {job.id}): pages must not be negative"
    status = await client.job(CopyPages, job.id).status()
    assert (status.state, status.code) == ("failed", "invalid_argument")


@durable
async def test_a_failed_job_without_a_stored_error_reply_has_the_code_of_its_row(
    world: Durable,
) -> None:
    await world.serve(archive())
    client = await world.client()
    job = await client.submit(CopyPages(pages=-1))
    await world.row(job.id, "failed")
    find = world.store.jobs.find

    async def find_without_result(key: JobKey) -> Any:
        return replace(await find(key), result=None)

    world.store.jobs.find = find_without_result
    error = await error_of(client.job(CopyPages, job.id).result(timeout=30))
    assert type(error) is InvalidArgument


@durable
async def test_a_waiting_job_is_cancelled_at_once_and_each_reader_gets_the_reason(
    world: Durable,
) -> None:
    gate = asyncio.Event()
    await world.serve(archive(gate))
    client = await world.client()
    running, waiting = await client.submit(CopyPages()), await client.submit(CopyPages())
    await world.row(running.id, "running")
    pushed = asyncio.create_task(error_of(waiting.result(timeout=30)))
    await asyncio.sleep(0)
    status = await client.job(CopyPages, waiting.id).cancel(reason="the order was withdrawn")
    assert (status.state, status.cancelled_by) == ("cancelled", "desk")
    told = f"archive.copy.v1 (job {waiting.id}): the job was cancelled by desk: the order was"
    for error in (await pushed, await error_of(client.job(CopyPages, waiting.id).result())):
        assert type(error) is Cancelled
        assert str(error).startswith(told)
    again = await waiting.cancel(reason="another reason")
    assert again.cancel_reason == "the order was withdrawn"
    gate.set()
    await running.result(timeout=30)
    assert (await running.cancel()).state == "succeeded"


@durable
async def test_the_job_of_another_submitter_is_not_found_in_the_same_words_and_time(
    world: Durable,
) -> None:
    await world.serve(archive())
    owner, other = await world.client(), await world.client("thief")
    job = await owner.submit(CopyPages())
    await job.result(timeout=30)
    loop = asyncio.get_running_loop()
    found = []
    for id_ in (job.id, "x" * len(job.id)):
        for ask in ("status", "cancel"):
            await asyncio.sleep(10 - loop.time() % 2)  # at the same place between two beats
            started = loop.time()
            handle = other.job(CopyPages, id_, submitter="desk")
            error = await error_of(getattr(handle, ask)())
            found.append((type(error), str(error).replace(id_, "ID"), loop.time() - started < 7))
    assert len(set(found)) == 1
    assert found[0][0] is NotFound
    assert (await job.status()).cancel_reason is None


# --- Handles that were submitted here, and whose pushes are lost ---


@durable
async def test_a_result_is_found_after_its_push_was_lost(world: Durable) -> None:
    gate = asyncio.Event()
    await world.serve(archive(gate))
    client = await world.client()
    job = await client.submit(CopyPages(pages=5))
    await world.row(job.id, "running")
    client._client.replies._jobs.clear()  # as if the worker had lost its connection
    gate.set()
    assert await job.result(timeout=30) == Copied(pages=5)
    numbers = [each.number async for each in job.updates()]
    assert numbers == [1]


@durable
async def test_a_result_is_found_after_the_submitter_has_connected_again(world: Durable) -> None:
    gate = asyncio.Event()
    await world.serve(archive(gate))
    client = await world.client()
    job = await client.submit(CopyPages(pages=5))
    await world.row(job.id, "running")
    waiting = asyncio.create_task(job.result(timeout=60))
    await asyncio.sleep(0.1)
    client._client.replies._jobs.clear()
    gate.set()
    await world.row(job.id, "succeeded")
    loop = asyncio.get_running_loop()
    started = loop.time()
    job.on_connection_lost()  # type: ignore[attr-defined]
    assert await waiting == Copied(pages=5)
    assert loop.time() - started < 2


@durable
async def test_a_handle_of_a_service_without_a_store_asks_once_and_receives_its_result(
    world: Durable,
) -> None:
    gate, asked = asyncio.Event(), []
    async with world.bus("archive") as bus, bus.serving(archive(gate)):
        client = await world.client()
        job: Any = await client.submit(CopyPages(pages=2))
        ask = job._asker._ask

        async def counted(*arguments: Any) -> Any:
            asked.append(arguments)
            return await ask(*arguments)

        job._asker._ask = counted
        waiting = asyncio.create_task(job.result())
        await asyncio.sleep(300)
        assert len(asked) == 1
        gate.set()
        assert await waiting == Copied(pages=2)
        assert [each.number async for each in job.updates()] == [1]


@durable
async def test_a_service_that_starts_again_is_waited_for_by_a_reader(world: Durable) -> None:
    client = await world.client()
    async with world.serving(archive(asyncio.Event()), stop_grace=0):
        job = await client.submit(CopyPages(pages=4))
        await world.row(job.id, "running")
        reader = client.job(CopyPages, job.id)
        assert (await reader.status()).state == "running"
        waiting = asyncio.create_task(reader.result(timeout=600))
        await asyncio.sleep(3)
    await asyncio.sleep(30)
    assert not waiting.done()
    await world.serve(archive())
    assert await waiting == Copied(pages=4)


# --- Markers ---


@durable
async def test_a_marker_of_another_service_is_acked_and_ignored(world: Durable) -> None:
    bus = await world.serve(archive())
    marker = new_marker("thief", now=wall_clock())
    await bus._transport.send(marker, replay_address(COPY_QUEUE), timeout=1)
    await asyncio.sleep(3)
    assert marker.id not in world.store._beats
    assert (world.broker.depth(COPY_QUEUE), world.broker.depth(f"{COPY_QUEUE}.dead")) == (0, 0)


@durable
async def test_an_instance_without_a_store_acks_a_marker_and_writes_no_dead_letter(
    world: Durable,
) -> None:
    async with world.bus("archive") as bus, bus.serving(archive()):
        marker = new_marker("archive", now=wall_clock())
        await bus._transport.send(marker, replay_address(COPY_QUEUE), timeout=1)
        await asyncio.sleep(3)
        assert world.broker.depth(f"{COPY_QUEUE}.dead") == 0
        assert world.broker.depth(COPY_QUEUE) == 0


@durable
async def test_an_instance_that_stops_removes_its_sign_of_life(world: Durable) -> None:
    async with world.serving(archive()):
        assert len(world.store._beats) == 1
    assert world.store._beats == {}


@durable
async def test_many_questions_about_unknown_jobs_share_their_markers(world: Durable) -> None:
    bus, sent = await world.serve(archive()), []
    client, send = await world.client(), bus._transport.send

    async def counted(message: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(message.type)
        return await send(message, *arguments, **options)

    transport: Any = bus._transport
    transport.send = counted
    asked = [error_of(client.job(CopyPages, str(number)).status()) for number in range(50)]
    assert {type(each) for each in await asyncio.gather(*asked)} == {NotFound}
    assert 1 <= sent.count("bus.marker.v1") <= 2


@durable
async def test_the_questions_are_not_listed_as_contracts_of_the_service(world: Durable) -> None:
    bus = await world.serve(archive())
    listed = [each.type for each in bus.report.info().contracts]
    assert sorted(listed) == ["archive.copy.v1", "archive.scan.v1"]
    assert bus.ready


@durable
async def test_questions_about_unknown_jobs_do_not_delay_the_state_of_a_known_one(
    world: Durable,
) -> None:
    await world.serve(archive())
    client, other = await world.client(), await world.client("thief")
    job = await client.submit(CopyPages())
    await job.result(timeout=30)
    unknown = [
        asyncio.create_task(error_of(other.job(CopyPages, f"x{number}").status()))
        for number in range(800)
    ]
    await asyncio.sleep(0.2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert (await job.status()).state == "succeeded"
    assert loop.time() - started < 0.5
    kinds = Counter(map(type, await asyncio.gather(*unknown)))
    assert kinds == {NotFound: 64, ResourceExhausted: 736}
    assert all(each.result().retry_after for each in unknown if each.result().retryable)
    assert type(await error_of(other.job(CopyPages, "x").status())) is NotFound


def test_questions_that_wait_leave_places_for_those_about_known_jobs() -> None:
    assert answers.MAX_WAITING * 2 <= question_endpoints.QUESTION_CONCURRENCY


@durable
async def test_failed_questions_do_not_refuse_the_next_one_by_a_circuit_breaker(
    world: Durable,
) -> None:
    client = await world.client()
    handle = client.job(CopyPages, "never")
    for _ in range(10):
        assert type(await error_of(handle.status())) is Unavailable
    await world.serve(archive())
    assert type(await error_of(handle.status())) is NotFound


@durable
async def test_a_question_that_a_frozen_instance_holds_is_answered_by_another(
    world: Durable,
) -> None:
    await world.serve(archive())
    client: Any = await world.client()
    job: Any = await client.submit(CopyPages())
    await job.result(timeout=30)
    ask, copies = job._asker._ask, []

    async def first_is_frozen(contract: Any, question: Any, timeout: float) -> Any:
        copies.append(timeout)
        if len(copies) == 1:
            await asyncio.sleep(timeout)
            raise DeadlineExceeded("no reply")
        return await ask(contract, question, timeout)

    job._asker._ask = first_is_frozen
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert (await job.status()).state == "succeeded"
    assert loop.time() - started < 3
    assert len(copies) == 2


@durable
async def test_a_reader_of_a_job_that_may_not_exist_is_not_told_that_it_continues(
    world: Durable,
) -> None:
    await world.serve(archive())
    client = await world.client()
    error = await error_of(client.job(CopyPages, "never").result(timeout=0.1))
    assert type(error) is DeadlineExceeded
    assert "It is not known yet whether the job exists." in str(error)
    assert "continues" not in str(error)


# --- Arguments ---


@durable
async def test_the_arguments_of_a_handle_are_checked(world: Durable) -> None:
    client: Bus = await world.client()
    wrong: list[tuple[Any, Any, Any, type[BusError], str]] = [
        (GetTotal, "1", None, ContractError, "is a contract of kind request, not job"),
        (CopyPages(), "1", None, ContractError, "is not a class"),
        (CopyPages, "", None, ConfigurationError, "must be a text of 1 to 1024"),
        (CopyPages, 5, None, ConfigurationError, "not a value of type int"),
        (CopyPages, "1", "Desk", ContractError, "is not a valid service name"),
        (CopyPages, "1", 3, ConfigurationError, "submitter must be the name of a service"),
    ]
    for job, id_, submitter, kind, text in wrong:
        with pytest.raises(kind, match=text):
            client.job(job, id_, submitter=submitter)
    handle = client.job(CopyPages, "1")
    assert "at most 200 characters" in str(await error_of(handle.cancel(reason="x" * 201)))
    assert "not None" in str(await error_of(handle.cancel(reason=None)))  # type: ignore[arg-type]
    for after in (-1, True, 1.5):
        call = anext(handle.updates(after=after))  # type: ignore[arg-type]
        assert "after must be a whole number from 0" in str(await error_of(call))
    assert "timeout must be" in str(await error_of(handle.result(timeout=-1)))


async def test_a_bus_that_is_not_open_has_no_handles() -> None:
    with pytest.raises(Unavailable, match="is not open"):
        Durable().bus("desk").job(CopyPages, "1")


@durable
async def test_a_reader_of_a_bus_that_is_closed_gets_connection_lost(world: Durable) -> None:
    await world.serve(archive(asyncio.Event()))
    async with world.bus("desk") as client:
        job = await client.submit(CopyPages())
        await world.row(job.id, "running")
        reader = asyncio.create_task(error_of(client.job(CopyPages, job.id).result()))
        await asyncio.sleep(1)
    assert (await reader).code == "unavailable"


# --- Results ---


@durable
async def test_a_large_result_arrives_in_parts(world: Durable) -> None:
    text = "é" * 9_000
    await world.serve(archive(text=text), max_message=24_000)
    client = await world.client()
    job = await client.submit(CopyPages())
    await world.row(job.id, "succeeded")
    assert (await client.job(CopyPages, job.id).result(timeout=30)).text == text


def test_the_signs_of_life_are_two_seconds_apart() -> None:
    assert (beats.BEAT_SECONDS, beats.MARGIN_SECONDS) == (2.0, 1.0)
