"""Replies and updates of a later version of the bus, or of a program in another language."""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from bus import Context, Router
from bus.contracts.contract import contract_of
from bus.errors import ContractViolation, DeadlineExceeded, Unknown
from bus.messaging.envelope import Envelope, reply
from bus.messaging.topology.addresses import Address
from bus.runtime.job_handle import PendingJob
from bus.runtime.pending_replies import PendingReplies
from bus.testing import MemoryBuses
from tests.unit.fakes import envelope, virtual
from tests.unit.ledger import CloseBooks, GetTotal, Total

JOB = envelope("ledger.close.v1", role="job", id="job")
REQUEST = envelope("ledger.total.v1", id="request")
SECRET = "Ada Lovelace"


def update(type_: str, body: object, asked: Envelope = JOB) -> Envelope:
    """Return an answer as another implementation writes it."""
    answer = reply(asked, None, source="ledger")
    return answer.replace(type=type_, body=json.dumps(body).encode())


def handle() -> PendingJob[Total]:
    return PendingJob("job", contract_of(CloseBooks), timeout=60)


@pytest.mark.parametrize(
    "type_", ["ledger.close.v1.partial", "ledger.close.v1.log", "bus.paused.v1", "", "🂡"]
)
def test_a_job_update_of_an_unknown_type_is_ignored_and_the_job_goes_on(
    type_: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "bus.client")

    @virtual
    async def run() -> None:
        mine = handle()
        reading = asyncio.ensure_future(anext(mine.updates()))
        mine.on_update(update(type_, {"note": SECRET}))
        mine.on_update(update("ledger.close.v1.progress", {"progress": 0.5}))
        assert (await reading).progress == 0.5
        mine.on_update(update("ledger.close.v1.reply", {"total": 1}))
        assert await mine.result(timeout=5) == Total(total=1)

    run()
    assert "ignored: this version of the bus does not know its type" in caplog.text
    assert SECRET not in caplog.text


@virtual
async def test_an_update_of_an_unknown_type_does_not_hide_that_an_update_was_rejected() -> None:
    mine = handle()
    mine.on_update(update("ledger.close.v1.progress", {"progress": SECRET}))
    mine.on_update(update("ledger.close.v1.partial", {}))
    with pytest.raises(DeadlineExceeded, match="was rejected: invalid progress update"):
        await mine.result(timeout=5)


@virtual
async def test_a_request_waits_on_after_an_answer_of_an_unknown_type() -> None:
    replies = PendingReplies()
    replies.start()
    future = replies.register("request", 5, "ledger.total.v1")
    replies.dispatch(update("ledger.total.v1.progress", {"progress": 0.5}, REQUEST))
    assert not future.done()
    replies.dispatch(update("ledger.total.v1.reply", {"total": 3}, REQUEST))
    assert (await future).type == "ledger.total.v1.reply"
    replies.discard("request", future)


@pytest.mark.parametrize("type_", ["ledger.close.v2.reply", "bus.error.v2"])
def test_a_result_or_failure_of_another_version_ends_the_job_as_unknown(type_: str) -> None:
    @virtual
    async def run() -> None:
        mine = handle()
        mine.on_update(update(type_, {}))
        with pytest.raises(Unknown, match="Check that the service runs the same version"):
            await mine.result(timeout=5)

    run()


@virtual
async def test_unknown_members_of_progress_and_result_are_ignored() -> None:
    mine = handle()
    mine.on_update(update("ledger.close.v1.progress", {"progress": 0.5, "eta": {"seconds": 4}}))
    mine.on_update(update("ledger.close.v1.reply", {"total": 1, "currency": "EUR"}))
    assert [each.progress async for each in mine.updates()] == [0.5]
    assert await mine.result() == Total(total=1)


@pytest.mark.parametrize("retryable", [True, False])
def test_an_unknown_error_code_is_unknown_and_unknown_members_of_an_error_are_ignored(
    retryable: bool,
) -> None:
    @virtual
    async def run() -> None:
        mine = handle()
        error = {"code": "too_hot", "message": "wait", "retryable": retryable, "retry_after": 4}
        mine.on_update(update("bus.error.v1", error))
        with pytest.raises(Unknown, match=r"wait .*too_hot") as caught:
            await mine.result()
        assert caught.value.retryable is retryable

    run()


@pytest.mark.parametrize("body", [{"code": SECRET}, [SECRET], None, {"total": SECRET}])
@pytest.mark.parametrize("type_", ["bus.error.v1", "ledger.close.v1.reply"])
def test_a_malformed_result_or_failure_ends_the_job_without_showing_its_values(
    type_: str, body: Any
) -> None:
    @virtual
    async def run() -> None:
        mine = handle()
        mine.on_update(update(type_, body))
        with pytest.raises(ContractViolation) as caught:
            await mine.result()
        assert SECRET not in str(caught.value)

    run()


async def test_an_update_of_a_newer_worker_does_not_end_the_job_on_whole_buses() -> None:
    router = Router("ledger")

    @router.job(CloseBooks)
    async def close(job: CloseBooks, context: Context) -> Total:
        await context.progress(0.5, "half")
        return Total(total=job.year)

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=2)

    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("ledger"), router)
        publish = buses.broker.publish

        def newer(wire: Any, address: Address) -> Any:
            if (wire.type or "").endswith((".progress", ".reply")):
                publish(replace(wire, type=f"{wire.type}.newer", message_id="newer"), address)
            return publish(wire, address)

        buses.broker.publish = newer  # type: ignore[method-assign]
        office = await buses.bus("office")
        job = await office.submit(CloseBooks(year=1999))
        assert [each.progress async for each in job.updates()] == [0.5]
        assert (await job.result(timeout=5)).total == 1999
        assert (await office.request(GetTotal())).total == 2
