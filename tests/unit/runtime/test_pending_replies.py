import asyncio
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, nan
from typing import Any

import pytest

from bus.contracts.contract import contract_of
from bus.errors import (
    BusError,
    ConfigurationError,
    ConnectionLost,
    ContractViolation,
    DeadlineExceeded,
    Expired,
    Internal,
    InvalidResult,
    NotFound,
    NotServed,
    Unavailable,
    Unknown,
)
from bus.messaging.envelope import (
    MAX_TEXT_LENGTH,
    Envelope,
    Progress,
    error_reply,
    progress_update,
    reply,
)
from bus.runtime.job_handle import PendingJob
from bus.runtime.pending_replies import PendingReplies
from bus.runtime.pending_request import check_reply, decode_reply
from bus.runtime.received_updates import MAX_UPDATES
from tests.unit.fakes import envelope, settle_down, virtual
from tests.unit.ledger import CloseBooks, GetTotal, Total

JOB = envelope("ledger.close.v1", role="job", id="job")
REQUEST = envelope("ledger.total.v1")


def handle(patience: float = 60) -> PendingJob[Total]:
    return PendingJob("job", contract_of(CloseBooks), timeout=patience)


def progress(done: float, note: str = "") -> Envelope:
    return progress_update(JOB, Progress(progress=done, note=note), source="ledger")


@contextmanager
def expecting(
    replies: PendingReplies, message_id: str, seconds: float = 60
) -> Iterator["asyncio.Future[Envelope]"]:
    replies.start()
    call = replies.register(message_id, seconds, "ledger.add.v1")
    try:
        yield call
    finally:
        replies.discard(message_id, call)


@virtual
async def test_a_call_that_nobody_answers_ends_at_its_deadline() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1", seconds=2) as call:
        with pytest.raises(DeadlineExceeded) as caught:
            await call
        assert caught.value.maybe_executed
        assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.05)


@virtual
async def test_a_reply_goes_to_the_call_that_waits_for_it() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1") as call, expecting(replies, "m-2") as other:
        answer = reply(REQUEST, Total(total=1), source="ledger")
        replies.dispatch(answer)
        assert await call is answer
        assert not other.done()


@virtual
async def test_late_second_and_foreign_replies_are_counted_and_dropped() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1"):
        replies.dispatch(reply(REQUEST, Total(total=1), source="ledger"))
        replies.dispatch(reply(REQUEST, Total(total=2), source="ledger"))
    replies.dispatch(reply(REQUEST, Total(total=3), source="ledger"))
    replies.dispatch(envelope(in_reply_to=None))
    assert replies.late == 3


@virtual
async def test_each_reply_ends_one_of_several_calls_with_the_same_id() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1") as first, expecting(replies, "m-1") as copy:
        replies.dispatch(reply(REQUEST, Total(total=1), source="ledger"))
        assert first.done()
        assert not copy.done()
        replies.dispatch(reply(REQUEST, Total(total=2), source="ledger"))
        assert copy.done()
        replies.dispatch(reply(REQUEST, Total(total=3), source="ledger"))
    assert replies.late == 1
    assert replies.undeliverable == 0


@virtual
async def test_the_end_of_one_call_leaves_another_call_with_its_id() -> None:
    replies = PendingReplies()
    replies.start()
    first, copy, last = (replies.register("m-1", 60, "ledger.total.v1") for _ in range(3))
    replies.discard("m-1", first)
    replies.discard("m-1", last)
    replies.dispatch(reply(REQUEST, Total(total=1), source="ledger"))
    assert copy.done()
    replies.discard("m-1", copy)
    assert not replies._calls


@virtual
async def test_each_return_fails_one_of_several_calls_with_the_same_id() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1") as first, expecting(replies, "m-1") as copy:
        replies.on_return("m-1", "NO_ROUTE")
        assert first.done()
        assert not copy.done()
        replies.on_publish_failed("m-1", Unavailable("closed"))
        assert isinstance(copy.exception(), Unavailable)


@virtual
async def test_a_lost_connection_fails_every_call_with_the_same_id() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1") as first, expecting(replies, "m-1") as copy:
        replies.on_connection_lost()
        assert isinstance(first.exception(), ConnectionLost)
        assert isinstance(copy.exception(), ConnectionLost)


@virtual
async def test_a_reply_may_refer_to_the_token_of_any_copy() -> None:
    replies = PendingReplies()
    replies.start()
    first = replies.register("m-1", 60, "ledger.total.v1", "token-1")
    copy = replies.register("m-1", 60, "ledger.total.v1", "token-2")
    answer = reply(REQUEST, Total(total=1), source="ledger")
    request = replies.find_request(answer)
    assert request is not None
    assert request.proofs == ("token-1", "token-2")
    replies.discard("m-1", first)
    request = replies.find_request(answer)
    assert request is not None
    assert request.proofs == ("token-1", "token-2")
    replies.record_rejected_reply(answer, "forged")
    assert request.rejection == "forged"
    replies.discard("m-1", copy)


@virtual
async def test_a_request_is_sent_from_its_publish_to_its_reply() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1"):
        assert not replies.is_sent("m-1")
        replies.mark_sent("m-1")
        assert replies.is_sent("m-1")
        replies.dispatch(reply(REQUEST, Total(total=1), source="ledger"))
        assert not replies.is_sent("m-1")
    assert not replies.is_sent("m-1")


@virtual
async def test_a_request_that_comes_back_fails_at_once() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1") as call:
        replies.on_return("m-1", "NO_ROUTE")
        with pytest.raises(NotServed, match="NO_ROUTE"):
            await call
        replies.on_return("m-1", "NO_ROUTE")
    replies.on_return("reply-of-ours", "NO_ROUTE")
    assert replies.undeliverable == 1


@virtual
async def test_a_lost_connection_fails_what_waits_and_no_more() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1") as first, expecting(replies, "m-2") as second:
        replies.dispatch(reply(REQUEST, Total(total=1), source="ledger"))
        replies.on_connection_lost()
        assert first.result().body == b'{"total":1}'
        with pytest.raises(ConnectionLost) as caught:
            await second
        assert caught.value.maybe_executed
    with expecting(replies, "m-3") as third:
        assert not third.done()


@virtual
async def test_an_error_that_nobody_looks_at_is_no_noise() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1"):
        replies.on_connection_lost()
    gc.collect()
    await settle_down()


@virtual
async def test_a_call_that_is_over_is_forgotten() -> None:
    replies = PendingReplies()
    with expecting(replies, "m-1") as call:
        pass
    assert call.cancelled()
    assert not replies._calls


class TooBusy(NotFound):
    """An error of a service that is retryable, although its code is not."""

    retryable = True


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (Expired("old"), DeadlineExceeded, False),
        (InvalidResult("wrong"), Internal, False),
        (Internal("x"), Internal, True),
        (TooBusy("later"), NotFound, True),
    ],
    ids=repr,
)
def test_an_error_is_as_retryable_as_its_service_says(
    error: BusError, kind: type[BusError], *, retryable: bool
) -> None:
    with pytest.raises(kind) as caught:
        check_reply(error_reply(REQUEST, error, source="ledger"), REQUEST.type)
    received = caught.value
    assert type(received) is kind
    assert (received.code, received.retryable) == (error.code, retryable)


@pytest.mark.parametrize(
    ("answer", "error", "in_doubt"),
    [
        (error_reply(REQUEST, NotFound("no such account"), source="ledger"), NotFound, False),
        (
            error_reply(REQUEST, Unavailable("x", maybe_executed=True), source="ledger"),
            Unavailable,
            True,
        ),
        (REQUEST.replace(type="ledger.total.v2.reply"), Unknown, True),
        (REQUEST.replace(type="ledger.total.v1.reply", body=b"{}"), ContractViolation, True),
        (REQUEST.replace(type="bus.error.v1", body=b"{}"), ContractViolation, True),
        (
            REQUEST.replace(
                type="bus.error.v1", body=b'{"code": "sunspots", "message": "m", "retryable": true}'
            ),
            Unknown,
            False,
        ),
    ],
)
def test_an_answer_that_is_not_a_reply_is_an_error_and_tells_whether_the_outcome_is_in_doubt(
    answer: Envelope, error: type[BusError], in_doubt: bool
) -> None:
    with pytest.raises(error) as caught:
        decode_reply(contract_of(GetTotal), answer)
    assert caught.value.maybe_executed is in_doubt


@virtual
async def test_a_job_tells_its_progress_and_its_result() -> None:
    replies, mine = PendingReplies(), handle()
    replies.track_job(mine)
    replies.dispatch(progress(0.1))

    async def work() -> None:
        for done in (0.5, 0.9):
            await asyncio.sleep(1)
            replies.dispatch(progress(done))
        replies.dispatch(reply(JOB, Total(total=4), source="ledger"))
        replies.dispatch(progress(0.95))
        replies.dispatch(error_reply(JOB, NotFound("late"), source="ledger"))

    working = asyncio.create_task(work())
    assert [update.progress async for update in mine.updates()] == [0.1, 0.5, 0.9]
    assert await mine.result() == Total(total=4)
    assert [update.progress async for update in mine.updates()] == [0.1, 0.5, 0.9]
    await working


@virtual
@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("5", 1),
        ("1.0000001", 1),
        ("-1", 0),
        ("1e300", 1),
        ("0", 0),
        ("1", 1),
        ("0.25", 0.25),
        ("1e400", None),
        ("NaN", None),
        ("Infinity", None),
        ("-Infinity", None),
        ("true", None),
        ('"1"', None),
        ("null", None),
        ("[1]", None),
    ],
)
async def test_the_progress_of_another_service_is_from_0_to_1_or_dropped(
    sent: str, seen: float | None
) -> None:
    mine = handle()
    mine.on_update(progress(0.5).replace(body=f'{{"progress": {sent}}}'.encode()))
    mine.on_update(progress(0.75))
    mine.on_update(reply(JOB, Total(total=1), source="ledger"))
    expected = [0.75] if seen is None else [seen, 0.75]
    assert [update.progress async for update in mine.updates()] == expected


@virtual
async def test_the_texts_of_an_update_are_cut() -> None:
    mine = handle()
    texts = {"progress": 0, "note": "n" * 5_000_000, "error": "e" * 5000}
    mine.on_update(progress(0).replace(body=json.dumps(texts).encode()))
    mine.on_update(progress(0, "n" * MAX_TEXT_LENGTH))
    mine.on_update(reply(JOB, Total(total=1), source="ledger"))
    cut, whole = [update async for update in mine.updates()]
    assert cut.note == f"{'n' * (MAX_TEXT_LENGTH - 1)}…"
    assert cut.error == f"{'e' * (MAX_TEXT_LENGTH - 1)}…"
    assert whole.note == "n" * MAX_TEXT_LENGTH


@virtual
async def test_a_reader_that_lags_misses_the_oldest_updates_only() -> None:
    mine = handle()
    updates = mine.updates()
    mine.on_update(progress(0, "0"))
    assert (await anext(updates)).note == "0"
    for number in range(1, MAX_UPDATES + 11):
        mine.on_update(progress(0, str(number)))
    mine.on_update(reply(JOB, Total(total=1), source="ledger"))
    notes = [update.note async for update in updates]
    assert (notes[0], notes[-1], len(notes)) == ("11", str(MAX_UPDATES + 10), MAX_UPDATES)


@virtual
async def test_two_readers_see_the_same() -> None:
    mine = handle()

    async def read() -> list[float]:
        return [update.progress async for update in mine.updates()]

    readers = [asyncio.create_task(read()) for _ in range(2)]
    for done in (0.1, 0.2):
        await settle_down()
        mine.on_update(progress(done))
    mine.on_update(reply(JOB, Total(total=1), source="ledger"))
    assert [await reader for reader in readers] == [[0.1, 0.2]] * 2


@virtual
async def test_a_job_that_failed_raises_what_it_raised() -> None:
    mine = handle()
    mine.on_update(error_reply(JOB, NotFound("no such year"), source="ledger"))
    with pytest.raises(NotFound, match="no such year"):
        await mine.result()


@virtual
async def test_waiting_for_a_job_ends_and_the_job_goes_on() -> None:
    mine = handle(patience=60)
    with pytest.raises(
        DeadlineExceeded,
        match=r"^ledger\.close\.v1 \(job job\): no result within 5 s\. The job continues\. ",
    ):
        await mine.result(timeout=5)
    with pytest.raises(
        DeadlineExceeded,
        match=r"^ledger\.close\.v1 \(job job\): no update for 60 s\. The job continues\. ",
    ):
        await anext(mine.updates())
    with pytest.raises(DeadlineExceeded):
        await mine.result(timeout=0)
    mine.on_update(reply(JOB, Total(total=1), source="ledger"))
    assert await mine.result(timeout=5) == Total(total=1)


@virtual
async def test_a_submitter_is_told_at_the_deadline_that_an_update_was_dropped() -> None:
    mine = handle()
    mine.on_update(progress(0.5).replace(body=b'{"progress": "Eleonora Quist"}'))
    with pytest.raises(DeadlineExceeded) as caught:
        await mine.result(timeout=5)
    assert "An update of the job was rejected: invalid progress update" in str(caught.value)
    assert "Quist" not in str(caught.value)


@pytest.mark.parametrize("timeout", [inf, nan, -1, True, "5"], ids=repr)
def test_a_jobs_result_is_awaited_for_a_finite_number_of_seconds(timeout: Any) -> None:
    @virtual
    async def run() -> None:
        mine = handle()
        mine.on_update(reply(JOB, Total(total=1), source="ledger"))
        with pytest.raises(
            ConfigurationError, match=r"ledger\.close\.v1 \(job .*\): timeout must be a number"
        ):
            await mine.result(timeout=timeout)

    run()


@virtual
async def test_progress_that_is_none_is_dropped() -> None:
    mine = handle()
    mine.on_update(progress(0).replace(body=b'{"progress": "much"}'))
    mine.on_update(reply(JOB, Total(total=1), source="ledger"))
    assert [update async for update in mine.updates()] == []


@virtual
async def test_a_handle_that_nobody_holds_is_forgotten() -> None:
    replies = PendingReplies()
    replies.track_job(handle())
    gc.collect()
    replies.dispatch(progress(0.5))
    assert replies.late == 1
