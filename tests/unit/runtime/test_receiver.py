import asyncio
import logging
import re
import socket
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

import pytest
from typing_extensions import override

from bus.contracts.contract import decode
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import (
    ConnectionLost,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from bus.messaging.context import Context, current
from bus.messaging.envelope import Envelope, ErrorReply
from bus.messaging.failure_location import failure_frames, failure_location
from bus.messaging.fault_record import MAX_REASON_LENGTH
from bus.messaging.handler import compose
from bus.messaging.ports.transport import Nacked, PublishOutcome, Returned
from bus.middleware.deadline import server_deadline
from bus.runtime.in_flight import MAX_REMEMBERED_RESULTS
from bus.runtime.job_reports import MAX_PENDING_RESULTS
from bus.runtime.receiver import Receiver
from bus.runtime.router import Router
from bus.runtime.settler import SETTLE_TIMEOUT_SECONDS, Settler
from tests.unit.fakes import (
    NOW,
    FakeDelivery,
    FakeTransport,
    Sent,
    envelope,
    receiver_of,
    settle_down,
    virtual,
)
from tests.unit.ledger import Add, BooksClosed, CloseBooks, GetTotal, Total

SECRET = "Eleonora Quist"
RETURNED, REFUSED = Returned(reason="NO_ROUTE"), Nacked(reason="basic.nack")


class Work:
    """A handler that ends when a test sets `go`, or at once."""

    def __init__(self, *, at_once: bool = True, error: BaseException | None = None) -> None:
        self.began: list[Any] = []
        self.ended = 0
        self.go = asyncio.Event()
        self.error = error
        if at_once:
            self.go.set()

    async def __call__(self, message: Any) -> Any:
        self.began.append(message)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.ended += 1
        return None if isinstance(message, BooksClosed) else Total(total=1)


def request(work: Any, transport: FakeTransport, *, concurrency: int = 2) -> Receiver:
    router = Router("ledger")
    router.request(Add, concurrency=concurrency)(work)
    return receiver_of(router, transport)


def idempotent(work: Any, transport: FakeTransport, *, concurrency: int = 2) -> Receiver:
    router = Router("ledger")
    router.request(GetTotal, concurrency=concurrency)(work)
    return receiver_of(router, transport)


def job(work: Any, transport: FakeTransport, *, concurrency: int = 2) -> Receiver:
    router = Router("ledger")
    router.job(CloseBooks, concurrency=concurrency, retry=RetryPolicy(attempts=3))(work)
    return receiver_of(router, transport)


def asked(**attributes: Any) -> FakeDelivery:
    known = {
        "queue": "ledger.requests.add.v1",
        "reply_to": "office.replies.1",
        "received": int(NOW * 1000),
    }
    return FakeDelivery(envelope(**{**known, **attributes}))


def asked_again(**attributes: Any) -> FakeDelivery:
    return asked(type_="ledger.total.v1", queue="ledger.requests.total.v1", **attributes)


def ordered(**attributes: Any) -> FakeDelivery:
    known = {"queue": "ledger.jobs.close.v1", "role": "job", "reply_to": "office.replies.1"}
    return FakeDelivery(envelope("ledger.close.v1", **{**known, **attributes}))


async def received(receiver: Receiver, *deliveries: FakeDelivery) -> None:
    for delivery in deliveries:
        receiver.on_delivery(delivery)
    await receiver.drain()


def to(transport: FakeTransport, exchange: str) -> list[Sent]:
    return [sent for sent in transport.sent if sent.address.exchange == exchange]


# --- Settlement ---


@virtual
async def test_a_request_is_answered_on_its_own_channel_before_its_ack() -> None:
    transport, delivery = FakeTransport(), asked_again()
    acked_before: list[int] = []

    def take(_: Envelope) -> None:
        acked_before.append(delivery.acks)

    transport.answer = take
    await received(idempotent(Work(), transport), delivery)
    (sent,) = transport.sent
    assert (sent.via, sent.address.routing_key, sent.envelope.body) == (
        delivery,
        "office.replies.1",
        b'{"total":1}',
    )
    assert (acked_before, delivery.acks) == ([0], 1)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NotFound("no such account"), "not_found", "no such account"),
        (
            ValueError(SECRET),
            "internal",
            "internal error while handling m-1. Search the service's log for this id.",
        ),
    ],
)
def test_a_request_that_fails_is_answered_with_the_error(
    error: Exception, code: str, text: str
) -> None:
    @virtual
    async def run() -> None:
        transport, delivery = FakeTransport(), asked()
        await received(request(Work(error=error), transport), delivery)
        body: ErrorReply = decode(ErrorReply, transport.sent[0].envelope.body)
        assert (body.code, body.message, delivery.acks) == (code, text, 1)

    run()


@virtual
async def test_a_request_that_wants_no_answer_gets_none() -> None:
    transport, delivery = FakeTransport(), asked(reply_to=None)
    await received(request(Work(), transport), delivery)
    assert (transport.sent, delivery.acks) == ([], 1)


@virtual
async def test_an_answer_whose_channel_is_gone_goes_another_way() -> None:
    transport, delivery = FakeTransport(), asked()

    def lose_the_first(_: Envelope) -> PublishOutcome | None:
        if len(transport.sent) == 1:
            raise ConnectionLost("gone", maybe_executed=True)
        return None

    transport.answer = lose_the_first
    await received(request(Work(), transport), delivery)
    assert [sent.via for sent in transport.sent] == [delivery, None]


@virtual
async def test_an_answer_that_is_too_large_is_told() -> None:
    transport, delivery = FakeTransport(), asked()

    def refuse(sent: Envelope) -> PublishOutcome | None:
        if sent.type != "bus.error.v1":
            raise InvalidArgument("too large")
        return None

    transport.answer = refuse
    await received(request(Work(), transport), delivery)
    body: ErrorReply = decode(ErrorReply, transport.sent[-1].envelope.body)
    assert (body.code, body.maybe_executed, delivery.acks) == ("failed_precondition", True, 1)


@virtual
async def test_an_event_that_went_well_is_acked() -> None:
    router, transport = Router("archive"), FakeTransport()
    router.event(BooksClosed)(Work())
    delivery = FakeDelivery(
        envelope("ledger.closed.v1", role="event", queue="archive.events.ledger.closed.v1")
    )
    await received(receiver_of(router, transport), delivery)
    assert (transport.sent, delivery.acks, delivery.requeues) == ([], 1, 0)


@virtual
async def test_a_job_that_went_well_reports_its_result_and_is_acked() -> None:
    transport, delivery = FakeTransport(), ordered()
    await received(job(Work(), transport), delivery)
    (result,) = to(transport, "bus.updates")
    assert (result.envelope.type, result.envelope.in_reply_to, result.address.confirmed) == (
        "ledger.close.v1.reply",
        "m-1",
        True,
    )
    assert delivery.acks == 1


@virtual
async def test_a_job_that_failed_is_copied_to_a_tier_and_then_acked() -> None:
    transport, delivery = FakeTransport(), ordered(attempt=2, headers={"mine": "kept"})
    await received(job(Work(error=ValueError(SECRET)), transport), delivery)
    (copy,) = to(transport, "ledger.retry.5s")
    assert (copy.address.routing_key, copy.address.confirmed) == ("ledger.jobs.close.v1", True)
    assert (copy.envelope.id, copy.envelope.attempt, copy.envelope.deadline) == ("m-1", 3, None)
    assert copy.envelope.headers == {"mine": "kept", "first-failed-at": int(NOW * 1000)}
    assert delivery.acks == 1
    assert SECRET.encode() not in b"".join(sent.envelope.body for sent in transport.sent)


@pytest.mark.parametrize(
    ("error", "attempt", "code", "reason"),
    [
        (ValueError(SECRET), 3, "internal", "ValueError"),
        (NotFound("no such year"), 1, "not_found", "NotFound: no such year"),
    ],
)
def test_a_job_that_failed_for_good_is_dead_lettered_with_its_reason(
    error: Exception, attempt: int, code: str, reason: str
) -> None:
    @virtual
    async def run() -> None:
        transport, delivery = FakeTransport(), ordered(attempt=attempt, headers={"mine": "kept"})
        await received(job(Work(error=error), transport), delivery)
        (dead,) = to(transport, "bus.dead")
        assert dead.address.routing_key == "ledger.jobs.close.v1"
        where, frames = failure_location(error), failure_frames(error)
        assert dead.envelope.headers == {
            "mine": "kept",
            "dead-where": where,
            "dead-frames": "\n".join(frames),
            "dead-code": code,
            "dead-error": type(error).__name__,
            "dead-reason": reason,
            "dead-queue": "ledger.jobs.close.v1",
            "dead-attempts": attempt,
            "dead-at": int(NOW * 1000),
            "dead-by": "ledger",
            "dead-host": socket.gethostname(),
            "dead-trunkline": version("trunkline"),
            "first-failed-at": int(NOW * 1000),
        }
        (told,) = to(transport, "bus.updates")
        assert (told.envelope.error, delivery.acks) == (code, 1)

    run()


@virtual
async def test_a_dead_letter_names_the_place_where_its_handler_failed() -> None:
    transport = FakeTransport()
    await received(job(Work(error=NotFound()), transport), ordered())
    dead = to(transport, "bus.dead")[0].envelope.headers
    place = r"tests/unit/runtime/test_receiver\.py:\d+ Work\.__call__"
    assert re.fullmatch(place, str(dead["dead-where"]))
    assert str(dead["dead-frames"]).splitlines()[-1] == dead["dead-where"]


@virtual
async def test_the_moment_of_the_first_failure_is_on_every_copy() -> None:
    transport, first = FakeTransport(), int(NOW * 1000) - 60_000
    headers = {"first-failed-at": first, "mine": "kept"}
    await received(job(Work(error=ValueError()), transport), ordered(attempt=2, headers=headers))
    assert to(transport, "ledger.retry.5s")[0].envelope.headers == headers
    await received(job(Work(error=ValueError()), transport), ordered(attempt=3, headers=headers))
    dead = to(transport, "bus.dead")[0].envelope.headers
    assert (dead["first-failed-at"], dead["dead-at"]) == (first, int(NOW * 1000))


@virtual
async def test_a_new_death_leaves_nothing_of_an_older_record() -> None:
    transport = FakeTransport()
    headers = {"dead-version": "0.9", "dead-mine": 1, "replays": 1}
    await received(job(Work(error=NotFound()), transport), ordered(headers=headers))
    dead = to(transport, "bus.dead")[0].envelope.headers
    assert "dead-version" not in dead
    assert "dead-mine" not in dead
    assert dead["replays"] == 1


@virtual
async def test_a_replayed_message_is_handled_although_the_ack_of_its_last_life_was_lost() -> None:
    transport, work = FakeTransport(), Work(error=NotFound())
    receiver, lost = job(work, transport), ordered()
    lost.alive = False
    await received(receiver, lost)
    replayed = ordered(headers={"replays": 1})
    await received(receiver, replayed)
    assert (len(work.began), len(to(transport, "bus.dead")), replayed.acks) == (2, 2, 1)


@virtual
async def test_copies_do_not_expire_with_their_original() -> None:
    """Receive AMQP's `expiration`, which any client may set: the dead letter must not expire."""
    transport = FakeTransport()
    await received(job(Work(error=ValueError()), transport), ordered(expiration=60_000))
    await received(job(Work(error=NotFound()), transport), ordered(expiration=60_000))
    assert to(transport, "ledger.retry.1s")[0].envelope.expiration is None
    assert to(transport, "bus.dead")[0].envelope.expiration is None


@virtual
async def test_a_long_reason_does_not_cost_the_connection() -> None:
    transport = FakeTransport()
    await received(job(Work(error=NotFound("\ud800" + "x" * 200_000)), transport), ordered())
    assert (
        len(str(to(transport, "bus.dead")[0].envelope.headers["dead-reason"])) == MAX_REASON_LENGTH
    )


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"fault": "no type"}, "Undecodable: no type"),
        (
            {"expires": int(NOW * 1000)},
            "Expired: ledger.close.v1: the message expired before it was handled. Send it again.",
        ),
        (
            {"body": b"{"},
            "ContractViolation: ledger.close.v1: the payload is not valid JSON (line 1 column 1).",
        ),
        (
            {"type_": "ledger.close.v2"},
            "Unimplemented: ledger does not serve ledger.close.v2 from ledger.jobs.close.v1",
        ),
    ],
)
def test_what_cannot_be_handled_is_dead_lettered_at_once(
    attributes: dict[str, Any], reason: str
) -> None:
    @virtual
    async def run() -> None:
        transport, work = FakeTransport(), Work()
        delivery = ordered(**{name: value for name, value in attributes.items() if name != "type_"})
        delivery.envelope = delivery.envelope.replace(
            type=attributes.get("type_", "ledger.close.v1")
        )
        await received(job(work, transport), delivery)
        assert to(transport, "bus.dead")[0].envelope.headers["dead-reason"] == reason
        assert (work.began, delivery.acks) == ([], 1)

    run()


def refusing(failure: PublishOutcome | Exception) -> FakeTransport:
    def refuse(_: Envelope) -> PublishOutcome:
        if isinstance(failure, Exception):
            raise failure
        return failure

    return FakeTransport(answer=refuse)


def accept(_: Envelope) -> None: ...


FAILURES = pytest.mark.parametrize(
    "failure", [RETURNED, REFUSED, Unavailable("down")], ids=["returned", "refused", "down"]
)


@virtual
async def test_a_message_cannot_forge_a_log_line_with_its_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport, forged = FakeTransport(), "ledger.close.v1\n2026-01-31 [error] forged"

    def refuse(copy: Envelope) -> PublishOutcome:
        raise Unavailable(f"{copy.type}: the deadline passed")

    transport.answer = refuse
    receiver = job(Work(), transport)
    receiver.on_delivery(FakeDelivery(envelope(forged, queue="ledger.jobs.close.v1", role="job")))
    await asyncio.sleep(5)
    transport.answer = accept
    await receiver.drain()
    lines = [each.getMessage() for each in caplog.records if each.name == "bus.settlement"]
    assert lines
    assert not [line for line in lines if "\n" in line]


@FAILURES
def test_a_copy_that_is_not_taken_is_sent_again_and_its_message_stays_in_hand(
    failure: PublishOutcome | Exception,
) -> None:
    """Retry the copy: before RabbitMQ 4.3 each requeue would count as a lost delivery."""

    @virtual
    async def run() -> None:
        transport, work = refusing(failure), Work(error=ValueError())
        receiver, delivery = job(work, transport), ordered(reply_to=None)
        receiver.on_delivery(delivery)
        await asyncio.sleep(50)
        assert (
            25 <= len(transport.sent) == len(transport.declared) <= 50
        )  # the receiver waits between attempts
        transport.answer = accept
        await receiver.drain()
        assert (len(work.began), delivery.acks, delivery.requeues) == (1, 1, 0)
        assert {sent.envelope.attempt for sent in to(transport, "ledger.retry.1s")} == {2}

    run()


@FAILURES
def test_a_copy_that_is_not_taken_for_a_minute_sends_the_message_back(
    failure: PublishOutcome | Exception,
) -> None:
    @virtual
    async def run() -> None:
        transport, work = refusing(failure), Work(error=ValueError())
        receiver, delivery = job(work, transport), ordered(reply_to=None)
        await received(receiver, delivery)
        assert (delivery.acks, delivery.requeues) == (0, 1)
        assert asyncio.get_running_loop().time() == pytest.approx(SETTLE_TIMEOUT_SECONDS, abs=3)

        transport.answer = accept
        again = ordered(reply_to=None)
        await received(receiver, again)
        assert (len(work.began), again.acks) == (1, 1)

    run()


@pytest.mark.parametrize(
    "failure",
    [InvalidArgument("too large"), PermissionDenied("access refused")],
    ids=["too large", "refused"],
)
def test_a_message_whose_copy_can_never_be_sent_goes_back_and_holds_no_place(
    failure: Exception,
) -> None:
    """Requeue the message: the broker dead-letters it at the delivery limit, without a copy."""

    @virtual
    async def run() -> None:
        receiver, delivery = job(Work(error=NotFound()), refusing(failure)), ordered(reply_to=None)
        await received(receiver, delivery)
        assert (delivery.acks, delivery.requeues) == (0, 1)
        # The broker delivers the message again at once, so the receiver waits before the requeue.
        assert 1 <= asyncio.get_running_loop().time() < 3

    run()


@virtual
async def test_a_stop_does_not_wait_for_a_copy_that_is_not_taken() -> None:
    receiver, delivery = job(Work(error=ValueError()), refusing(REFUSED)), ordered(reply_to=None)
    receiver.on_delivery(delivery)
    await asyncio.sleep(10)
    receiver.stop_accepting()
    await receiver.drain()
    assert (delivery.acks, delivery.requeues) == (0, 1)
    assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)


@virtual
async def test_a_result_that_cannot_be_sent_waits_and_the_job_is_not_done_again() -> None:
    def down(_: Envelope) -> PublishOutcome:
        raise Unavailable("down")

    transport, work = FakeTransport(answer=down), Work()
    receiver, first, second = job(work, transport), ordered(), ordered()
    await received(receiver, first)
    assert (first.acks, first.requeues) == (0, 1)
    transport.answer = lambda _: None
    await received(receiver, second)
    assert (len(work.began), second.acks) == (1, 1)


@virtual
async def test_a_result_that_is_too_large_is_told_and_the_job_is_done() -> None:
    def refuse(sent: Envelope) -> PublishOutcome | None:
        if sent.error is None:
            raise InvalidArgument("too large")
        return None

    transport, delivery = FakeTransport(answer=refuse), ordered()
    await received(job(Work(), transport), delivery)
    assert (transport.sent[-1].envelope.error, delivery.acks, delivery.requeues) == (
        "failed_precondition",
        1,
        0,
    )


@virtual
async def test_a_submitter_that_is_away_holds_no_ack_and_gets_its_result_when_it_is_back() -> None:
    transport, delivery = FakeTransport(answer=lambda _: RETURNED), ordered()
    receiver = job(Work(), transport)
    receiver.on_delivery(delivery)
    await settle_down()
    assert delivery.acks == 1
    await asyncio.sleep(2)
    transport.answer = lambda _: None
    offered = len(transport.sent)
    await asyncio.sleep(60)
    assert len(transport.sent) == offered + 1


@virtual
async def test_the_submitter_of_a_dead_job_who_cannot_be_told_at_once_hears_of_it_later() -> None:
    def down_for_updates(sent: Envelope) -> PublishOutcome | None:
        if sent.role == "update":
            raise ConnectionLost("down", maybe_executed=True)
        return None

    transport, delivery = FakeTransport(answer=down_for_updates), ordered()
    receiver = job(Work(error=NotFound("no such year")), transport)
    receiver.on_delivery(delivery)
    await settle_down()
    assert (len(to(transport, "bus.dead")), delivery.acks) == (1, 1)
    transport.answer = lambda _: None
    offered = len(to(transport, "bus.updates"))
    await asyncio.sleep(60)
    assert [told.envelope.error for told in to(transport, "bus.updates")[offered:]] == ["not_found"]


@virtual
async def test_a_result_that_the_broker_forbids_holds_no_ack_and_is_not_sent_again() -> None:
    """Drop the result: each attempt would close the channel on which all others publish."""

    def refuse(_: Envelope) -> PublishOutcome:
        raise PermissionDenied("access refused")

    transport, delivery, later = FakeTransport(answer=refuse), ordered(), ordered(id="m-2")
    receiver = job(Work(), transport)
    receiver.on_delivery(delivery)
    await settle_down()
    assert (delivery.acks, delivery.requeues) == (1, 0)
    transport.answer = lambda _: RETURNED
    receiver.on_delivery(later)
    await settle_down()
    assert later.acks == 1
    transport.answer = refuse
    await asyncio.sleep(60)
    assert len(transport.sent) == 3


@virtual
async def test_results_that_nobody_wants_fill_no_memory_and_hold_no_stop() -> None:
    transport = FakeTransport(answer=lambda _: RETURNED)
    receiver = job(Work(), transport, concurrency=200)
    for number in range(MAX_PENDING_RESULTS + 50):
        receiver.on_delivery(ordered(id=str(number)))
    await settle_down()
    settler = receiver._settler
    assert isinstance(settler, Settler)
    assert len(settler._reports._pending) == MAX_PENDING_RESULTS
    await receiver.drain()
    assert asyncio.get_running_loop().time() < 1
    assert not settler._reports._pending


# --- Redelivery ---


@virtual
async def test_a_redelivery_of_what_still_runs_joins_it() -> None:
    transport, work = FakeTransport(), Work(at_once=False)
    receiver, first, second = job(work, transport), ordered(), ordered()
    receiver.on_delivery(first)
    await settle_down()
    first.alive = False
    receiver.on_delivery(second)
    await settle_down()
    work.go.set()
    await receiver.drain()
    assert (len(work.began), first.acks, second.acks) == (1, 0, 1)
    assert len(to(transport, "bus.updates")) == 1


@virtual
async def test_the_next_attempt_is_no_redelivery() -> None:
    work = Work(at_once=False)
    receiver = job(work, FakeTransport())
    receiver.on_delivery(ordered(attempt=1))
    receiver.on_delivery(ordered(attempt=2))
    await settle_down()
    assert len(work.began) == 2
    work.go.set()
    await receiver.drain()


@virtual
async def test_what_ended_while_its_ack_could_not_be_written_is_acked_when_it_returns() -> None:
    transport, work = FakeTransport(), Work(error=FailedPrecondition("no"))
    receiver, first, second, third = job(work, transport), ordered(), ordered(), ordered()
    first.alive = False
    await received(receiver, first)
    sent = len(transport.sent)
    await received(receiver, second)
    assert (len(work.began), second.acks, len(transport.sent)) == (1, 1, sent)
    await received(receiver, third)
    assert (
        len(work.began) == 2
    )  # a message that comes again after the ack of its failure was replayed


@virtual
async def test_what_must_not_run_twice_is_acked_before_it_runs() -> None:
    work = Work(at_once=False)
    receiver, delivery = request(work, FakeTransport()), asked()
    receiver.on_delivery(delivery)
    await settle_down()
    assert (len(work.began), delivery.acks) == (1, 1)
    work.go.set()
    await receiver.drain()


@virtual
async def test_what_must_not_run_twice_is_refused_when_it_is_delivered_again() -> None:
    transport, work, delivery = FakeTransport(), Work(), asked()
    delivery.redelivered = True
    await received(request(work, transport), delivery)
    body: ErrorReply = decode(ErrorReply, transport.sent[0].envelope.body)
    assert (work.began, body.code, body.maybe_executed, delivery.acks) == (
        [],
        "unavailable",
        True,
        1,
    )


@virtual
async def test_what_must_not_run_twice_does_not_run_where_its_ack_cannot_be_written() -> None:
    transport, work, delivery = FakeTransport(), Work(), asked()
    delivery.alive = False
    await received(request(work, transport), delivery)
    assert (work.began, transport.sent) == ([], [])


@virtual
async def test_a_request_that_ran_once_is_refused_when_it_is_delivered_again() -> None:
    transport, work = FakeTransport(), Work()
    receiver, again = request(work, transport), asked()
    await received(receiver, asked())
    again.redelivered = True
    await received(receiver, again)
    assert (len(work.began), again.acks) == (1, 1)
    assert [sent.envelope.error for sent in transport.sent] == [None, "unavailable"]


@virtual
async def test_a_retry_copy_has_the_time_of_the_first_failure_which_limits_the_total_time() -> None:
    transport, router = FakeTransport(), Router("ledger")
    router.job(CloseBooks, retry=RetryPolicy(attempts=9, total_time=60))(
        Work(error=Unavailable("later"))
    )
    receiver = receiver_of(router, transport)
    await received(receiver, ordered())
    (copy,) = to(transport, "ledger.retry.1s")
    assert copy.envelope.headers["first-failed-at"] == int(NOW * 1000)
    earlier = int((NOW - 59) * 1000)
    await received(receiver, ordered(attempt=3, headers={"first-failed-at": earlier}))
    (dead,) = to(transport, "bus.dead")
    assert (dead.envelope.headers["first-failed-at"], dead.envelope.headers["dead-attempts"]) == (
        earlier,
        3,
    )


@virtual
async def test_an_idempotent_request_runs_again_when_it_is_delivered_again() -> None:
    work, delivery = Work(), asked_again()
    delivery.redelivered = True
    receiver = idempotent(work, FakeTransport())
    receiver.on_delivery(delivery)
    await settle_down()
    await receiver.drain()
    assert (len(work.began), delivery.acks) == (1, 1)


@virtual
async def test_what_a_sender_writes_as_the_brokers_count_does_not_count() -> None:
    """Receive a forged count: a classic queue does not count, and passes on the sender's header."""
    work, transport = Work(), FakeTransport()
    receiver = idempotent(work, transport)
    again = asked_again()
    again.redelivered, again.broker_headers = True, {"x-delivery-count": 99}
    receiver.on_delivery(again)
    await settle_down()
    assert (len(work.began), [each.envelope.error for each in transport.sent]) == (1, [None])


@virtual
async def test_what_is_remembered_is_bounded_and_holds_no_contents() -> None:
    receiver = job(Work(), FakeTransport())
    for number in range(MAX_REMEMBERED_RESULTS + 100):
        delivery = ordered(id=str(number))
        delivery.alive = False
        receiver.on_delivery(delivery)
    await receiver.drain()
    assert len(receiver.state.in_flight.results) == MAX_REMEMBERED_RESULTS
    assert {(kept.reply, kept.error) for kept in receiver.state.in_flight.results.values()} == {
        (None, None)
    }
    assert not receiver.state.in_flight.open
    assert not receiver.state.in_flight.tasks


@virtual
async def test_what_is_abandoned_before_it_began_goes_back() -> None:
    receiver, work, delivery = job(Work(), FakeTransport()), Work(), ordered()
    receiver.on_delivery(delivery)
    assert receiver.cancel_running() == 1
    await receiver.drain()
    assert (work.began, delivery.acks, delivery.requeues) == ([], 0, 1)
    assert not receiver.state.in_flight.open
    assert not receiver.state.in_flight.tasks


# --- Failures ---


@virtual
async def test_a_handler_that_awaits_something_cancelled_has_failed() -> None:
    transport, delivery = FakeTransport(), ordered()
    await received(job(Work(error=asyncio.CancelledError()), transport), delivery)
    assert to(transport, "bus.dead")[0].envelope.headers["dead-code"] == "cancelled"
    assert delivery.acks == 1


class Panic(BaseException):
    """An error that is not an `Exception`, like a panic of a library in Rust."""


@pytest.mark.parametrize(
    "error", [Panic(SECRET), BaseExceptionGroup(SECRET, [Panic(SECRET)])], ids=["panic", "group"]
)
def test_a_handler_that_fails_with_what_is_no_exception_has_failed(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def run() -> None:
        transport, delivery = FakeTransport(), ordered()
        receiver = job(Work(error=error), transport, concurrency=1)
        await received(receiver, delivery)
        assert (
            len(to(transport, "ledger.retry.1s")),
            delivery.acks,
            receiver.state.slots.free,
        ) == (1, 1, 1)
        await received(receiver, last := ordered(attempt=3))
        (dead,) = to(transport, "bus.dead")
        assert (dead.envelope.headers["dead-code"], dead.envelope.headers["dead-error"]) == (
            "internal",
            "Panic",
        )
        assert last.acks == 1

    run()
    assert SECRET not in caplog.text
    assert ": a handler or middleware raised a BaseException (" in caplog.text


class NoSuchYear(NotFound):
    """A user's error that does not call `BusError.__init__`."""

    def __init__(self, year: int) -> None:
        self.year = year


class Mute(NotFound):
    """A user's error that raises when its text is read."""

    @override
    def __str__(self) -> str:
        raise KeyError(SECRET)


@virtual
async def test_an_error_of_a_users_own_kind_is_told_once_and_is_no_fault_of_the_bus() -> None:
    transport, delivery, question = FakeTransport(), ordered(), asked()
    await received(job(Work(error=NoSuchYear(1999)), transport), delivery)
    assert [dead.envelope.headers["dead-code"] for dead in to(transport, "bus.dead")] == [
        "not_found"
    ]
    assert [told.envelope.error for told in to(transport, "bus.updates")] == ["not_found"]
    assert (delivery.acks, delivery.requeues) == (1, 0)
    await received(request(Work(error=NoSuchYear(1999)), transport), question)
    assert (transport.sent[-1].envelope.error, question.acks) == ("not_found", 1)


NONE: Any = None


@pytest.mark.parametrize(
    "error", [Mute(), NotFound("no such year", maybe_executed=NONE)], ids=["no text", "no value"]
)
def test_an_error_that_cannot_be_told_is_an_internal_one(error: Exception) -> None:
    @virtual
    async def run() -> None:
        transport, delivery, question = FakeTransport(), ordered(), asked_again()
        await received(job(Work(error=error), transport), delivery)
        assert (len(to(transport, "ledger.retry.1s")), delivery.acks, delivery.requeues) == (
            1,
            1,
            0,
        )
        await received(idempotent(Work(error=error), transport), question)
        assert (transport.sent[-1].envelope.error, question.acks, question.requeues) == (
            "internal",
            1,
            0,
        )

    run()


@virtual
async def test_a_fault_of_the_bus_leaves_no_message_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: Envelope) -> PublishOutcome:
        raise KeyError(SECRET)

    work = Work(error=ValueError())
    receiver, delivery = job(work, FakeTransport(answer=broken), concurrency=1), ordered()
    await received(receiver, delivery)
    assert (delivery.acks, delivery.requeues, receiver.state.slots.free) == (0, 1, 1)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert SECRET not in caplog.text


@virtual
async def test_handlers_see_the_surroundings_of_who_serves_and_not_of_who_delivers() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    seen: list[tuple[str, str]] = []

    async def look(message: CloseBooks, context: Context) -> Total:
        assert current.get() is context
        seen.append((variable.get(), context.envelope.id))
        variable.set("changed by a handler")
        return Total(total=1)

    variable.set("serving")
    receiver = job(look, FakeTransport())
    variable.set("delivering")
    await received(receiver, ordered(id="1"), ordered(id="2"))
    assert seen == [("serving", "1"), ("serving", "2")]


@virtual
async def test_a_task_that_outlives_its_handler_keeps_its_cause_and_not_its_deadline() -> None:
    go, seen, left = asyncio.Event(), list[Context | None](), list[asyncio.Task[None]]()
    deadlines: list[int | None] = []

    async def background() -> None:
        await go.wait()
        seen.append(current.get())

    async def begin(message: Add, context: Context) -> Total:
        deadlines.append(context.deadline)
        left.append(asyncio.create_task(background()))
        return Total(total=1)

    router = Router("ledger")
    router.request(Add)(begin)
    receiver = receiver_of(
        router,
        FakeTransport(),
        handler=compose([server_deadline(clock=lambda: NOW, longest=10)], router),
    )
    await received(receiver, asked())
    go.set()
    await left[0]
    (context,) = seen
    assert context is not None
    assert (deadlines, context.envelope.id, context.deadline) == (
        [int(NOW * 1000) + 10_000],
        "m-1",
        None,
    )


@virtual
async def test_progress_is_told_and_never_fails_the_job() -> None:
    transport, delivery = FakeTransport(), ordered()

    async def report(message: CloseBooks, context: Context) -> Total:
        await context.progress(0.5, "half")
        transport.answer = _down_for_progress
        await context.progress(0.9)
        return Total(total=1)

    await received(job(report, transport), delivery)
    assert [sent.envelope.type for sent in transport.sent] == [
        "ledger.close.v1.progress",
        "ledger.close.v1.progress",
        "ledger.close.v1.reply",
    ]
    assert delivery.acks == 1


@pytest.mark.parametrize(
    ("done", "note"),
    [(float("nan"), ""), (0.5, "reading \udcff.wav")],
    ids=["no number", "no text"],
)
def test_progress_that_cannot_be_told_does_not_fail_the_job(done: float, note: str) -> None:
    async def report(message: CloseBooks, context: Context) -> Total:
        await context.progress(done, note)
        return Total(total=1)

    @virtual
    async def run() -> None:
        transport, delivery = FakeTransport(), ordered()
        await received(job(report, transport), delivery)
        assert [sent.envelope.type for sent in transport.sent] == ["ledger.close.v1.reply"]
        assert delivery.acks == 1

    run()


def _down_for_progress(sent: Envelope) -> PublishOutcome | None:
    if sent.type.endswith(".progress"):
        raise Unavailable("down")
    return None


# --- Stopping ---


@virtual
async def test_a_stop_hands_back_what_waits_and_finishes_what_runs() -> None:
    work = Work(at_once=False)
    receiver = job(work, FakeTransport(), concurrency=1)
    running, waiting, unseen = ordered(id="1"), ordered(id="2"), ordered(id="3")
    receiver.on_delivery(running)
    receiver.on_delivery(waiting)
    await settle_down()
    receiver.on_delivery(unseen)  # its task has not started before the stop
    receiver.stop_accepting()
    await settle_down()
    assert [delivery.requeues for delivery in (running, waiting, unseen)] == [0, 1, 1]
    work.go.set()
    await receiver.drain()
    assert (running.acks, len(work.began)) == (1, 1)


@virtual
async def test_a_place_that_is_free_at_the_stop_is_not_taken() -> None:
    work = Work()
    receiver, delivery = job(work, FakeTransport()), ordered()
    receiver.on_delivery(delivery)
    receiver.stop_accepting()
    await receiver.drain()
    assert (work.began, delivery.requeues) == ([], 1)


@virtual
async def test_a_stop_keeps_what_would_be_refused_elsewhere() -> None:
    work = Work(at_once=False)
    receiver = request(work, FakeTransport(), concurrency=1)
    deliveries = [asked(id="1"), asked(id="2")]
    for delivery in deliveries:
        receiver.on_delivery(delivery)
    await settle_down()
    receiver.stop_accepting()
    work.go.set()
    await receiver.drain()
    assert [(delivery.acks, delivery.requeues) for delivery in deliveries] == [(1, 0), (1, 0)]
    assert work.ended == 2


@virtual
async def test_what_is_not_done_after_the_grace_is_abandoned_and_goes_back() -> None:
    work = Work(at_once=False)
    receiver, delivery = job(work, FakeTransport()), ordered()
    receiver.on_delivery(delivery)
    await settle_down()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await receiver.drain()
    assert receiver.cancel_running() == 1
    await receiver.drain()
    assert (work.ended, delivery.acks, delivery.requeues) == (0, 0, 1)


@virtual
async def test_a_message_that_the_bus_cannot_settle_keeps_no_slot_while_it_waits() -> None:
    """Check that a bug in settlement does not delay the other messages of the endpoint."""

    def broken(_: Envelope) -> PublishOutcome:
        raise RuntimeError("a bug")

    work = Work()
    receiver = job(work, FakeTransport(answer=broken), concurrency=1)
    receiver.on_delivery(ordered(id="1"))
    receiver.on_delivery(ordered(id="2"))
    await settle_down()
    assert len(work.began) == 2
    await receiver.drain()
