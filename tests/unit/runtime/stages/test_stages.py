"""The inbound stages, each alone around a handler that records the messages that reach it."""

import asyncio
from pkgutil import iter_modules
from typing import Any

import pytest
from typing_extensions import override

from bus.errors import Expired, ProcessLost, Unauthenticated, Unavailable, Undecodable, UnknownKey
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import PARKED
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.runtime import stages
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound import INBOUND, RECORDING, RUNNING, compose_inbound
from bus.runtime.inbound_message import (
    NO_ACTION,
    REQUEUE,
    SETTLED,
    HandlingResult,
    InboundMessage,
)
from bus.runtime.router import Router
from bus.runtime.stages.acknowledge_at_most_once import acknowledge_at_most_once
from bus.runtime.stages.authenticate import authenticate
from bus.runtime.stages.decrypt import decrypt
from bus.runtime.stages.deduplicate import deduplicate
from bus.runtime.stages.isolate_poison import isolate_poison
from bus.runtime.stages.join_in_flight import join_in_flight
from bus.runtime.stages.limit_concurrency import limit_concurrency
from bus.runtime.stages.recall_result import recall_result
from bus.runtime.stages.reject_expired import reject_expired
from bus.runtime.stages.reject_malformed import reject_malformed
from bus.storage.memory.inbox import MemoryInbox
from tests.unit.fakes import LIMIT, NOW, FakeDelivery, FakeTransport, envelope, state_of, virtual
from tests.unit.ledger import Add, CloseBooks, GetTotal, Total

DONE = HandlingResult()


class Inner:
    """A handler that records each message, and returns `result`."""

    def __init__(self, result: HandlingResult = DONE) -> None:
        self.seen: list[InboundMessage] = []
        self.result = result

    async def __call__(self, message: InboundMessage) -> HandlingResult:
        self.seen.append(message)
        return self.result


def state(model: Any = CloseBooks, **attributes: Any) -> EndpointState:
    router = Router("ledger")

    async def work(_message: Any) -> Total:
        return Total(total=1)

    register: Any = router.job if model is CloseBooks else router.request
    register(model, concurrency=1)(work)
    return state_of(router, FakeTransport(), **attributes)


def job(delivery_count: int = 0, **attributes: Any) -> InboundMessage:
    delivery = FakeDelivery(
        envelope("ledger.close.v1", role="job", queue="ledger.jobs.close.v1", **attributes),
        redelivered=bool(delivery_count),
        broker_headers={"x-delivery-count": delivery_count},
    )
    return InboundMessage(delivery)


def deliveries_of(message: InboundMessage) -> list[Any]:
    return message.deliveries


def test_every_stage_file_is_in_a_list_and_in_each_list_at_most_once() -> None:
    lists = [[stage.__name__ for stage in each] for each in (INBOUND, RECORDING, RUNNING)]
    assert all(len(names) == len(set(names)) for names in lists)
    names = {name for names in lists for name in names}
    assert names == {each.name for each in iter_modules(stages.__path__)}


def test_load_is_shed_after_the_authentication_and_before_the_ack_and_the_inbox() -> None:
    names = [stage.__name__ for stage in INBOUND]
    order = ["limit_concurrency", "authenticate", "recall_result", "shed_load"]
    order += ["acknowledge_at_most_once", "deduplicate"]
    assert [name for name in names if name in order] == order


@virtual
async def test_all_stages_together_pass_an_ordinary_message() -> None:
    inner, endpoint = Inner(), state()
    assert await compose_inbound(endpoint, inner)(job()) is DONE
    assert len(inner.seen) == 1


@virtual
async def test_join_in_flight_adds_a_redelivery_to_the_message_in_flight() -> None:
    inner, endpoint = Inner(), state()
    stage = join_in_flight(endpoint)(inner)
    first, again = job(id="1"), job(id="1")
    assert await stage(first) is DONE
    assert await stage(again) is NO_ACTION
    assert first.deliveries == [*first.deliveries[:1], *again.deliveries]
    assert inner.seen == [first]


@virtual
async def test_join_in_flight_keeps_another_message_with_the_same_id_apart() -> None:
    inner, endpoint = Inner(), state()
    stage = join_in_flight(endpoint)(inner)
    first = job(id="1")
    other = InboundMessage(FakeDelivery(envelope("ledger.other.v1", role="job", id="1")))
    await stage(first)
    assert await stage(other) is DONE
    assert first.key != other.key
    endpoint.in_flight.finish(other)
    assert endpoint.in_flight.open == {first.key: first}


def asked(*, redelivered: bool = False) -> InboundMessage:
    """Return a request with one id, as its caller sends it first or again."""
    request = envelope("ledger.add.v1", reply_to="office.replies.1")
    return InboundMessage(FakeDelivery(request, redelivered=redelivered))


@virtual
async def test_join_in_flight_keeps_a_request_apart_that_is_sent_again_after_its_reply() -> None:
    inner, endpoint = Inner(), state(Add)
    stage, first, again = join_in_flight(endpoint)(inner), asked(), asked()
    await stage(first)
    first.is_settling = True  # the caller can have the error reply now
    assert await stage(again) is DONE
    assert (inner.seen, first.deliveries) == ([first, again], first.deliveries[:1])


@virtual
async def test_join_in_flight_adds_the_redelivery_of_a_request_whose_reply_is_sent() -> None:
    inner, endpoint = Inner(), state(Add)
    stage, first = join_in_flight(endpoint)(inner), asked()
    await stage(first)
    first.is_settling = True
    assert await stage(asked(redelivered=True)) is NO_ACTION


@virtual
async def test_recall_result_lets_a_request_run_that_is_sent_again() -> None:
    inner, endpoint = Inner(), state(Add)
    stage, first = recall_result(endpoint)(inner), asked()
    endpoint.in_flight.remember(first, SETTLED)  # its ack was lost
    assert await stage(asked()) is DONE
    assert await stage(asked(redelivered=True)) is SETTLED


@virtual
async def test_isolate_poison_lets_a_candidate_wait_until_it_is_granted() -> None:
    inner, endpoint = Inner(), state()
    candidate = job(delivery_count=2)
    running = asyncio.ensure_future(isolate_poison(endpoint)(inner)(candidate))
    await asyncio.sleep(1)
    assert (inner.seen, candidate.is_deferred) == ([], True)
    (waiting,) = endpoint.candidates.waiting
    alone = asyncio.create_task(waiting.run())
    assert await running is DONE
    assert (inner.seen, candidate.is_deferred, alone.done()) == ([candidate], False, False)
    endpoint.in_flight.finish(candidate)
    await alone


@virtual
async def test_isolate_poison_requeues_a_candidate_that_is_refused_or_comes_during_a_stop() -> None:
    inner, endpoint = Inner(), state()
    stage = isolate_poison(endpoint)(inner)
    running = asyncio.ensure_future(stage(job(delivery_count=2)))
    await asyncio.sleep(1)
    endpoint.candidates.waiting[0].refuse()
    assert await running is REQUEUE
    endpoint.in_flight.stop()
    assert await stage(job(delivery_count=2)) is REQUEUE
    assert (inner.seen, endpoint.candidates.waiting) == ([], [])


@virtual
async def test_isolate_poison_forgets_a_candidate_whose_task_is_cancelled() -> None:
    endpoint = state()
    running = asyncio.ensure_future(isolate_poison(endpoint)(Inner())(job(delivery_count=2)))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert endpoint.candidates.waiting == []


@virtual
async def test_isolate_poison_dead_letters_at_the_limit_without_running() -> None:
    endpoint = state()
    message = job(delivery_count=LIMIT)
    stage = isolate_poison(endpoint)(recall_result(endpoint)(Inner()))
    assert isinstance((await stage(message)).error, ProcessLost)


@virtual
async def test_a_forged_message_that_was_lost_too_often_does_not_fail_the_genuine_message() -> None:
    """Give the forgery the sender, id and attempt of the genuine message."""

    class ByProof(Guard):
        @override
        def authorize(self, envelope: Envelope) -> Exception | None:
            return None if envelope.proof == "genuine" else Unauthenticated("forged")

    inner, endpoint = Inner(), state(gate=ByProof())
    stage = isolate_poison(endpoint)(authenticate(endpoint)(recall_result(endpoint)(inner)))
    forged, genuine = job(delivery_count=LIMIT, proof="forged"), job(proof="genuine")
    assert forged.key == genuine.key
    assert isinstance((await stage(forged)).error, Unauthenticated)
    assert await stage(genuine) is DONE
    assert inner.seen == [genuine]


@virtual
async def test_limit_concurrency_gives_one_slot_until_the_message_is_settled() -> None:
    inner, endpoint = Inner(), state()
    stage = limit_concurrency(endpoint)(inner)
    first, second = job(id="1"), job(id="2")
    await stage(first)
    waiting = asyncio.ensure_future(stage(second))
    await asyncio.sleep(1)
    assert inner.seen == [first]
    endpoint.in_flight.finish(first)
    assert await waiting is DONE
    assert inner.seen == [first, second]


@virtual
async def test_limit_concurrency_requeues_waiters_when_the_service_stops() -> None:
    endpoint = state()
    stage = limit_concurrency(endpoint)(Inner())
    await stage(job(id="1"))
    waiting = asyncio.ensure_future(stage(job(id="2")))
    await asyncio.sleep(1)
    endpoint.slots.refuse_waiters()
    assert await waiting is REQUEUE
    assert await stage(job(id="3")) is REQUEUE


class Guard:
    """A guard with one answer now, and another after the keys were fetched."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.refreshes = 0

    def authorize(self, _envelope: Envelope) -> Exception | None:
        return self.errors[0]

    def may_wait(self, envelope: Envelope, error: Exception) -> bool:
        return isinstance(error, UnknownKey) and PARKED not in envelope.headers

    async def recheck_with_new_keys(self, _envelope: Envelope) -> Exception | None:
        return self.errors[1]

    def refresh_keys(self) -> None:
        self.refreshes += 1


@virtual
async def test_authenticate_rejects_a_message_before_anything_else_sees_it() -> None:
    inner = Inner()
    result = await authenticate(state(gate=Guard(Unauthenticated("forged"))))(inner)(job())
    assert (type(result.error), result.unauthorized, inner.seen) == (Unauthenticated, True, [])


@virtual
async def test_authenticate_fetches_keys_for_a_message_that_waited_for_its_key() -> None:
    inner, guard = Inner(), Guard(UnknownKey("new"), None)
    assert await authenticate(state(gate=guard))(inner)(job(headers={PARKED: 1})) is DONE
    assert len(inner.seen) == 1


@virtual
async def test_authenticate_lets_an_event_or_job_wait_for_an_unknown_key_once() -> None:
    inner, guard = Inner(), Guard(UnknownKey("new"), None)
    result = await authenticate(state(gate=guard))(inner)(job())
    assert (type(result.error), guard.refreshes, inner.seen) == (UnknownKey, 1, [])


@virtual
async def test_recall_result_returns_a_remembered_result_once() -> None:
    inner, endpoint = Inner(), state()
    stage, message = recall_result(endpoint)(inner), job()
    endpoint.in_flight.remember(message, SETTLED)
    assert await stage(message) is SETTLED
    assert await stage(message) is DONE


@virtual
async def test_recall_result_knows_no_result_of_a_rejected_message() -> None:
    endpoint, message = state(), job()
    rejected = HandlingResult(error=Unauthenticated("forged"), unauthorized=True)
    endpoint.in_flight.remember(message, rejected)
    assert await recall_result(endpoint)(Inner())(message) is DONE


@virtual
async def test_acknowledge_at_most_once_acks_before_the_handler() -> None:
    inner = Inner()
    message = InboundMessage(FakeDelivery(envelope()))
    assert await acknowledge_at_most_once(state(Add))(inner)(message) is DONE
    assert [delivery.acks for delivery in deliveries_of(message)] == [1]


@virtual
async def test_acknowledge_at_most_once_never_runs_a_redelivery() -> None:
    inner = Inner()
    message = InboundMessage(FakeDelivery(envelope(), redelivered=True))
    result = await acknowledge_at_most_once(state(Add))(inner)(message)
    assert isinstance(result.error, Unavailable)
    assert (result.error.maybe_executed, inner.seen) == (True, [])


@virtual
async def test_acknowledge_at_most_once_leaves_a_message_whose_channel_is_gone() -> None:
    inner = Inner()
    message = InboundMessage(FakeDelivery(envelope(), alive=False))
    assert await acknowledge_at_most_once(state(Add))(inner)(message) is NO_ACTION
    assert inner.seen == []


@virtual
async def test_acknowledge_at_most_once_is_left_out_for_an_idempotent_request() -> None:
    inner = Inner()
    assert acknowledge_at_most_once(state(GetTotal))(inner) is inner


@virtual
async def test_deduplicate_handles_a_message_once_and_gives_a_copy_the_same_reply() -> None:
    reply = envelope("ledger.total.v1.reply", role="reply")
    inner, inbox = Inner(HandlingResult(reply=reply)), MemoryInbox()
    stage = deduplicate(state(GetTotal, inbox=inbox))(inner)
    first, copy = (InboundMessage(FakeDelivery(envelope("ledger.total.v1"))) for _ in range(2))
    assert [(await stage(each)).reply for each in (first, copy)] == [reply, reply]
    assert inner.seen == [first]


@virtual
async def test_deduplicate_settles_a_copy_that_no_caller_waits_for() -> None:
    inbox, message = MemoryInbox(), job()
    key = MessageKey("ledger.jobs.close.v1", message.envelope.source, message.envelope.id)
    await inbox.add(key, HandledMessage())
    assert await deduplicate(state(inbox=inbox))(Inner())(message) is SETTLED


@virtual
async def test_deduplicate_records_no_failure() -> None:
    inner, inbox = Inner(HandlingResult(error=Unavailable("later"))), MemoryInbox()
    await deduplicate(state(inbox=inbox))(inner)(job())
    assert len(inbox) == 0


@virtual
async def test_reject_malformed_fails_what_could_not_be_decoded() -> None:
    inner = Inner()
    result = await reject_malformed(state())(inner)(job(fault="no message_id"))
    assert (type(result.error), inner.seen) == (Undecodable, [])


@pytest.mark.parametrize(("expires", "runs"), [(-1, False), (0, False), (1, True), (None, True)])
@virtual
async def test_reject_expired_fails_what_is_over(expires: int | None, runs: bool) -> None:
    inner = Inner()
    moment = None if expires is None else int(NOW * 1000) + expires
    result = await reject_expired(state())(inner)(job(expires=moment))
    assert (isinstance(result.error, Expired), len(inner.seen)) == (not runs, int(runs))


@virtual
async def test_decrypt_fails_a_payload_without_a_key_and_keeps_the_message_as_received() -> None:
    inner, message = Inner(), job(headers={"encryption": "jwe"})
    received = message.envelope
    result = await decrypt(state())(inner)(message)
    assert (result.error is not None, inner.seen, message.envelope) == (True, [], received)


@virtual
async def test_decrypt_fails_a_message_if_the_cipher_has_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint, inner, bug = state(), Inner(), OverflowError("a bug of a library")

    def fail(_envelope: Envelope) -> Envelope:
        raise bug

    monkeypatch.setattr(type(endpoint.runtime.security.cipher), "decrypt", staticmethod(fail))
    assert (await decrypt(endpoint)(inner)(job())).error is bug
    assert inner.seen == []


@virtual
async def test_a_remembered_result_is_reused_after_the_keys_were_fetched() -> None:
    inner, endpoint = Inner(), state(gate=Guard(UnknownKey("new"), None))
    message = job(headers={PARKED: 1})
    endpoint.in_flight.remember(message, SETTLED)
    assert await authenticate(endpoint)(recall_result(endpoint)(inner))(message) is SETTLED
    assert inner.seen == []
