"""A demonstration that waits for a worker or a broker that has ended."""

import asyncio
from typing import Any, cast

import pytest
from typing_extensions import override

from bus import Bus, DeadlineExceeded, NotFound, NotServed, Unavailable
from tests.unit.fakes import virtual
from workers.demo.watch import watch_broker, watch_services, watched


async def never() -> None:
    await asyncio.Event().wait()


async def fail_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise Unavailable("the worker ended")


class Watched:
    """A bus whose broker and workers are gone for the given seconds of the loop's time."""

    def __init__(self, *, broker: range = range(0), transcription: range = range(0)) -> None:
        self._broker, self._transcription = broker, transcription

    @property
    def ready(self) -> bool:
        return int(asyncio.get_running_loop().time()) not in self._broker

    async def request(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: object = None,
    ) -> Any:
        now, service = int(asyncio.get_running_loop().time()), type(request).__module__
        if "transcription" in service and now in self._transcription:
            raise NotServed("it does not run")
        raise NotFound("no such record") if now % 2 else DeadlineExceeded("busy")


class Killed(Watched):
    """A bus with killed workers: requests wait in a queue that the broker has not deleted yet."""

    @override
    async def request(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: object = None,
    ) -> Any:
        await asyncio.sleep(timeout or 0)
        raise DeadlineExceeded("no reply")


def bus(**gone: range) -> Bus:
    return cast("Bus", Watched(**gone))


async def unknown(_queue: str) -> int | None:
    return None


@virtual
async def test_the_first_watch_that_fails_ends_the_work() -> None:
    ended = []

    async def work() -> None:
        try:
            await never()
        finally:
            ended.append("cleaned up")

    with pytest.raises(Unavailable, match="the worker ended"):
        await watched(work(), never(), fail_after(3))
    assert ended == ["cleaned up"]


@virtual
async def test_the_result_or_error_of_the_work_ends_the_watches() -> None:
    async def work() -> int:
        await asyncio.sleep(1)
        return 7

    assert await watched(work(), never(), fail_after(3)) == 7
    with pytest.raises(Unavailable, match="the worker ended"):
        await watched(fail_after(1), never())
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_a_broker_that_is_gone_for_ten_seconds_is_an_error_and_a_shorter_time_is_not() -> (
    None
):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch_broker(bus(broker=range(5, 13))), 60)
    with pytest.raises(Unavailable, match="the broker has not answered for 10 s"):
        await asyncio.wait_for(watch_broker(bus(broker=range(100, 200))), 150)


@virtual
async def test_a_worker_that_is_gone_for_ten_seconds_is_an_error_and_a_busy_one_is_not() -> None:
    services = ("transcription", "documentation")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            watch_services(bus(transcription=range(5, 13)), services, unknown), 60
        )
    gone = bus(transcription=range(60, 1000))
    with pytest.raises(Unavailable, match="transcription: its worker has not been running for 10"):
        await asyncio.wait_for(watch_services(gone, services, unknown), 100)


@virtual
async def test_a_killed_worker_is_an_error_within_seconds_because_its_queue_has_no_consumer() -> (
    None
):
    consumers = {
        "transcription.jobs.transcribe.v1": 1,
        "documentation.jobs.generate-documents.v1": 0,
    }

    async def count(queue: str) -> int | None:
        return consumers[queue]

    services, began = ("transcription", "documentation"), asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="documentation: its worker has not been running for 10"):
        await asyncio.wait_for(watch_services(cast("Bus", Killed()), services, count), 100)
    assert asyncio.get_running_loop().time() - began < 20


@pytest.mark.parametrize("consumers", [1, None])
def test_a_worker_that_does_not_answer_is_busy_if_its_queue_may_have_a_consumer(
    consumers: int | None,
) -> None:
    async def count(_queue: str) -> int | None:
        return consumers

    @virtual
    async def run() -> None:
        services = ("transcription", "documentation")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch_services(cast("Bus", Killed()), services, count), 60)

    run()
