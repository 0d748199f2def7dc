"""Handles of durable jobs on a real RabbitMQ, with two instances of the service."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from bus import Bus, Cancelled, Context, Job, Message, NotFound, Router, Unavailable, contract
from bus.runtime.jobs import beats, job_asker
from bus.settings import load_settings
from bus.testing import MemoryStore
from tests.polling import DEADLINE, POLL, until
from tests.unit.runtime.jobs.held_store import HeldStore


class Bound(Message):
    pages: int


@contract("bindery.bind", version=1)
class BindBook(Job[Bound]):
    pages: int = 1


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "BEAT_SECONDS", 0.4)
    monkeypatch.setattr(beats, "HURRIED_SECONDS", 0.2)
    monkeypatch.setattr(beats, "MARGIN_SECONDS", 0.2)


def bindery(gate: asyncio.Event) -> Router:
    router = Router("bindery")

    @router.job(BindBook)
    async def bind(job: BindBook, context: Context) -> Bound:
        await context.progress(0.5, "half")
        await gate.wait()
        return Bound(pages=job.pages)

    return router


class Bindery:
    """Two instances of a service that share a store. The test can freeze the second recorder."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.store = MemoryStore()
        self.second: Any = HeldStore(self.store)
        self.gate = asyncio.Event()
        self._open = AsyncExitStack()

    async def client(self, service: str = "reader") -> Bus:
        settings = load_settings(url=self._url, auth="off")
        return await self._open.enter_async_context(Bus(service, settings=settings))

    @asynccontextmanager
    async def instance(self, store: Any) -> AsyncIterator[Bus]:
        settings = load_settings(url=self._url, auth="off", stop_grace=0.1)
        async with (
            Bus("bindery", settings=settings, store=store) as bus,
            bus.serving(bindery(self.gate)),
        ):
            yield bus

    async def start(self) -> None:
        self.second.jobs.gate.set()
        for store in (self.store, self.second):
            await self._open.enter_async_context(self.instance(store))

    async def wait_running(self, count: int) -> None:
        """Wait until this number of jobs is running."""
        deadline = time.monotonic() + DEADLINE
        while True:
            counts = await self.store.jobs.counts()
            if sum(each[2] for each in counts if each[1] == "running") == count:
                return
            assert time.monotonic() < deadline, counts
            await asyncio.sleep(POLL)

    async def close(self) -> None:
        self.gate.set()
        self.second.jobs.gate.set()
        await self._open.aclose()


@pytest.fixture
async def service(vhost_url: str) -> AsyncIterator[Bindery]:
    service = Bindery(vhost_url)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def test_a_job_behind_busy_workers_is_queued_and_one_that_never_was_is_not_found(
    service: Bindery,
) -> None:
    client, other = await service.client(), await service.client()
    jobs = [await client.submit(BindBook(pages=number)) for number in range(4)]
    handles = [other.job(BindBook, job.id) for job in jobs]

    async def states() -> list[str]:
        return sorted([(await each.status()).state for each in handles])

    await service.wait_running(2)
    assert await states() == ["queued", "queued", "running", "running"]
    started = time.monotonic()
    with pytest.raises(NotFound, match="no such job of the submitter 'reader'"):
        await other.job(BindBook, "never").status()
    assert time.monotonic() - started < 5
    [waiting, _] = [each for each in handles if (await each.status()).state == "queued"]
    assert (await waiting.cancel(reason="sold")).state == "cancelled"
    service.gate.set()
    for number, handle in enumerate(handles):
        if handle is waiting:
            with pytest.raises(Cancelled, match="by reader: sold"):
                await handle.result(timeout=20)
        else:
            assert (await handle.result(timeout=20)).pages == number


async def test_no_job_is_unknown_just_after_its_submission_while_one_recorder_is_frozen(
    service: Bindery, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await service.client()
    await asyncio.gather(*(client.submit(BindBook()) for _ in range(4)))  # beyond a prefetch of 1
    service.second.jobs.gate.clear()
    jobs = [await client.submit(BindBook()) for _ in range(10)]
    await until(lambda: service.second.jobs.waiting, "a delivery to the frozen recorder")
    asked = [asyncio.create_task(client.job(BindBook, job.id).status()) for job in jobs]
    await asyncio.sleep(0)  # each question begins before its time limit is patched
    with monkeypatch.context() as patched:
        patched.setattr(job_asker, "QUESTION_SECONDS", 1.5)
        with pytest.raises(Unavailable, match="cannot tell yet"):
            await client.job(BindBook, "never").status()
    answers = [task for task in asked if task.done()]
    assert len(answers) < len(jobs)
    service.second.jobs.gate.set()
    assert {(await task).state for task in asked} <= {"queued", "running"}
    with pytest.raises(NotFound):
        await client.job(BindBook, "never").status()


async def test_a_result_is_read_after_its_worker_and_the_bus_of_its_submitter_have_stopped(
    vhost_url: str,
) -> None:
    service = Bindery(vhost_url)
    try:
        async with service.instance(service.store):
            async with Bus("reader", settings=load_settings(url=vhost_url, auth="off")) as bus:
                job_id = (await bus.submit(BindBook(pages=9))).id
            await service.wait_running(1)
        service.gate.set()
        async with service.instance(service.store):
            client = await service.client()
            assert (await client.job(BindBook, job_id).result(timeout=20)).pages == 9
    finally:
        await service.close()


async def test_a_service_that_does_not_run_is_unavailable(vhost_url: str) -> None:
    async with Bus("reader", settings=load_settings(url=vhost_url, auth="off")) as bus:
        with pytest.raises(Unavailable, match="no instance of 'bindery' answers questions"):
            await bus.job(BindBook, "1").status()
