"""Tests of the causes of errors: the exception of a handler in the same process."""

import asyncio
from traceback import extract_tb

import pytest

from bus import Cancelled, Context, Internal, RetryPolicy, Router
from bus.testing import MemoryBuses
from tests.unit.testing.archive import Find, Lend, Place, Store, archive


async def served(buses: MemoryBuses) -> None:
    await buses.serve(await buses.bus("archive"), archive())


async def test_an_error_reply_is_chained_to_the_exception_of_the_handler(
    buses: MemoryBuses,
) -> None:
    await served(buses)
    reader = await buses.bus("reader")
    with pytest.raises(Internal) as raised:
        await reader.request(Find(title="torn"))
    cause = raised.value.__cause__
    assert isinstance(cause, LookupError)
    assert cause.args == ("torn",)
    assert extract_tb(cause.__traceback__)[-1].name == "shelf_of"


async def test_the_error_of_a_job_is_chained_to_the_exception_of_its_last_attempt(
    buses: MemoryBuses, skip_waits: None
) -> None:
    await served(buses)
    job = await (await buses.bus("reader")).submit(Store(title="torn"))
    with pytest.raises(Internal) as raised:
        await job.result()
    assert isinstance(raised.value.__cause__, LookupError)


async def test_an_error_that_passes_two_services_is_chained_to_both(buses: MemoryBuses) -> None:
    await served(buses)
    desk = Router("desk")

    @desk.request(Lend)
    async def lend(request: Lend, context: Context) -> Place:
        return await context.bus.request(Find(title=request.title))

    await buses.serve(await buses.bus("desk"), desk)
    with pytest.raises(Internal) as raised:
        await (await buses.bus("reader")).request(Lend(title="torn"))
    inner = raised.value.__cause__
    assert isinstance(inner, Internal)
    assert isinstance(inner.__cause__, LookupError)


async def test_a_request_that_succeeds_after_a_failure_of_another_has_no_cause(
    buses: MemoryBuses,
) -> None:
    await served(buses)
    reader = await buses.bus("reader")
    with pytest.raises(Internal):
        await reader.request(Find(title="torn"))
    assert await reader.request(Find(title="Emma")) == Place(shelf="B1")


async def test_an_error_after_a_cancellation_inside_the_handler_has_it_as_its_cause(
    buses: MemoryBuses,
) -> None:
    router = Router("archive")

    @router.request(Find)
    async def find(request: Find) -> Place:
        raise asyncio.CancelledError

    @router.job(Store, retry=RetryPolicy(attempts=1))
    async def store(job: Store) -> Place:
        raise asyncio.CancelledError

    await buses.serve(await buses.bus("archive"), router)
    reader = await buses.bus("reader")
    with pytest.raises(Cancelled) as of_request:
        await reader.request(Find(title="Emma"))
    job = await reader.submit(Store(title="Emma"))
    with pytest.raises(Cancelled) as of_job:
        await job.result()
    for raised, name in ((of_request, "find"), (of_job, "store")):
        cause = raised.value.__cause__
        assert isinstance(cause, asyncio.CancelledError)
        assert extract_tb(cause.__traceback__)[-1].name == name
