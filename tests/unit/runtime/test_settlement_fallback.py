"""Faults that are injected into the settlement: no message is lost, and nothing loops."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from bus.contracts.contract import decode
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from bus.messaging.envelope import Envelope, ErrorReply
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.topology.declarations import DELIVERY_LIMIT
from bus.runtime import job_reports, settler
from bus.runtime.inbox_retry import INBOX_RETRY_SECONDS
from bus.runtime.receiver import Receiver
from bus.runtime.router import Router
from bus.runtime.settlement_fallback import MAX_SETTLE_TRIES
from bus.security.message_security import MessageSecurity
from bus.testing import MemoryBuses, MemoryTransport
from tests.polling import until
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, envelope, receiver_of, virtual
from tests.unit.ledger import Add, BooksClosed, CloseBooks, GetTotal, Total
from tests.unit.runtime.in_memory import in_memory

SECRET = "Eleonora Quist"
JOBS, EVENTS = "ledger.jobs.close.v1", "ledger.events.ledger.closed.v1"


class Work:
    """A handler that counts its runs, and fails if it has an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs = 0
        self.error = error

    async def __call__(self, message: Any) -> Any:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return None if isinstance(message, BooksClosed) else Total(total=1)


def receiver(kind: str, work: Any, transport: FakeTransport, **parts: Any) -> Receiver:
    router = Router("ledger")
    policy = RetryPolicy(attempts=3)
    if kind == "job":
        router.job(CloseBooks, retry=policy, concurrency=1)(work)
    elif kind == "event":
        router.event(BooksClosed, retry=policy, concurrency=1)(work)
    else:
        contract: Any = {"add": Add, "total": GetTotal}[kind]
        router.request(contract, concurrency=1)(work)
    return receiver_of(router, transport, **parts)


def delivery(kind: str, **attributes: Any) -> FakeDelivery:
    if kind == "job":
        known = {"role": "job", "queue": JOBS, "reply_to": "office.replies.1"}
        return FakeDelivery(envelope("ledger.close.v1", **{**known, **attributes}))
    if kind == "event":
        known = {"role": "event", "queue": EVENTS}
        return FakeDelivery(envelope("ledger.closed.v1", **{**known, **attributes}))
    known = {"queue": f"ledger.requests.{kind}.v1", "reply_to": "office.replies.1"}
    received = int(NOW * 1000)
    return FakeDelivery(envelope(f"ledger.{kind}.v1", received=received, **{**known, **attributes}))


async def received(receiver: Receiver, *deliveries: FakeDelivery) -> None:
    for each in deliveries:
        receiver.on_delivery(each)
    await receiver.drain()


def to(transport: FakeTransport, exchange: str) -> list[Envelope]:
    return [sent.envelope for sent in transport.sent if sent.address.exchange == exchange]


def broken(*_: Any, **__: Any) -> Any:
    """Stand for any function of the bus that has a bug."""
    raise KeyError(SECRET)


def exiting(*_: Any, **__: Any) -> Any:
    """Stand for code in a stage, an inbox or a transport that calls `sys.exit`."""
    raise SystemExit(SECRET)


def refuse(_: Envelope) -> PublishOutcome:
    raise KeyError(SECRET)


# --- Events and jobs ---


@pytest.mark.parametrize("kind", ["event", "job"])
def test_a_message_that_cannot_be_settled_is_dead_lettered_after_a_few_tries(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def decide(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise TypeError(SECRET)

    @virtual
    async def run() -> None:
        transport, work = FakeTransport(), Work(ValueError(SECRET))
        here, message = receiver(kind, work, transport), delivery(kind)
        await received(here, message)
        (dead,) = to(transport, "bus.dead")
        assert (dead.headers["dead-code"], dead.headers["dead-error"]) == ("internal", "ValueError")
        assert dead.headers["dead-reason"] == (
            "ValueError: the message could not be settled, because of TypeError"
        )
        assert (work.runs, len(tries), message.acks, message.requeues) == (
            1,
            MAX_SETTLE_TRIES,
            1,
            0,
        )
        assert here.state.slots.free == 1
        if kind == "job":
            (told,) = to(transport, "bus.updates")
            assert told.error == "internal"

    monkeypatch.setattr(settler, "decide", decide)
    run()
    assert SECRET not in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


@pytest.mark.parametrize("kind", ["event", "job"])
def test_a_message_that_cannot_even_be_dead_lettered_stays_in_its_queue_and_is_counted(
    kind: str,
) -> None:
    @virtual
    async def run() -> None:
        transport, work = FakeTransport(answer=refuse), Work(NotFound("no such year"))
        here, message = receiver(kind, work, transport), delivery(kind, reply_to=None)
        await received(here, message)
        assert (message.acks, message.requeues, message.counted) == (0, 1, 1)
        assert len(transport.sent) == MAX_SETTLE_TRIES + 1

        transport.answer = lambda _: None  # the fault has gone, and the broker delivers again
        again = delivery(kind, reply_to=None)
        await received(here, again)
        assert transport.sent[-1].address.exchange == "bus.dead"
        assert (work.runs, again.acks) == (1, 1)

    run()


@pytest.mark.parametrize("kind", ["event", "job"])
@pytest.mark.parametrize("function", ["fault_headers", "dead_letter_address"])
def test_a_fault_in_writing_the_dead_letter_keeps_the_message(
    kind: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @virtual
    async def run() -> None:
        work, message = Work(NotFound("no such year")), delivery(kind)
        await received(receiver(kind, work, FakeTransport()), message)
        assert (work.runs, message.acks, message.counted) == (1, 0, 1)

    monkeypatch.setattr(settler, function, broken)
    run()


@pytest.mark.parametrize("error", [InvalidArgument("too large"), PermissionDenied("refused")])
def test_a_copy_that_can_never_be_sent_counts_toward_the_delivery_limit(error: Exception) -> None:
    def never(_: Envelope) -> PublishOutcome:
        raise error

    @virtual
    async def run() -> None:
        message = delivery("event")
        await received(receiver("event", Work(NotFound()), FakeTransport(answer=never)), message)
        assert (message.acks, message.requeues, message.counted) == (0, 1, 1)

    run()


@virtual
async def test_a_stop_does_not_wait_for_the_next_try() -> None:
    here, message = (
        receiver("event", Work(NotFound()), FakeTransport(answer=refuse)),
        delivery("event"),
    )
    here.on_delivery(message)
    await until(lambda: here.state.slots.free == 1 and here.state.in_flight.open, "a failed try")
    here.stop_accepting()
    await here.drain()
    assert (message.acks, message.requeues, message.counted) == (0, 1, 0)


def test_a_dead_letter_is_written_once_although_its_report_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @virtual
    async def run() -> None:
        transport, message = FakeTransport(), delivery("job")
        await received(receiver("job", Work(NotFound()), transport), message)
        assert (len(to(transport, "bus.dead")), message.acks) == (1, 1)

    monkeypatch.setattr(settler, "error_reply", broken)
    run()


@pytest.mark.parametrize("function", ["progress_update", "safe_reason"])
def test_a_retry_copy_is_written_once_although_its_report_fails(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @virtual
    async def run() -> None:
        transport, message = FakeTransport(), delivery("job")
        await received(receiver("job", Work(ValueError()), transport), message)
        assert (len(to(transport, "ledger.retry.1s")), message.acks) == (1, 1)

    if function == "safe_reason":
        monkeypatch.setattr(job_reports, "code_of", broken)
    else:
        monkeypatch.setattr(job_reports, function, broken)
    run()


def failing_once(original: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """Return `original` with an error for each message that is not an error reply."""

    def protect(self: Any, reply: Envelope, request: Envelope, **options: Any) -> Envelope:
        if reply.error is None:
            raise error
        protected: Envelope = original(self, reply, request, **options)
        return protected

    return protect


@pytest.mark.parametrize("error", [KeyError(SECRET), FailedPrecondition("no key is valid")])
def test_a_job_that_is_done_is_not_done_again_if_its_result_cannot_be_sent(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    @virtual
    async def run() -> None:
        transport, work, message = FakeTransport(), Work(), delivery("job")
        await received(receiver("job", work, transport), message)
        (told,) = to(transport, "bus.updates")
        assert (told.error, SECRET.encode() in told.body) == ("failed_precondition", False)
        assert (work.runs, message.acks, to(transport, "bus.dead")) == (1, 1, [])

    protect = failing_once(MessageSecurity.protect_update, error)
    monkeypatch.setattr(MessageSecurity, "protect_update", protect)
    run()


def test_a_job_that_is_done_is_acked_if_nothing_can_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @virtual
    async def run() -> None:
        transport, work, message = FakeTransport(), Work(), delivery("job")
        await received(receiver("job", work, transport), message)
        assert (work.runs, message.acks, transport.sent) == (1, 1, [])

    monkeypatch.setattr(MessageSecurity, "protect_update", broken)
    run()


# --- Requests ---


@pytest.mark.parametrize("kind", ["add", "total"], ids=["at most once", "idempotent"])
@pytest.mark.parametrize("error", [KeyError(SECRET), PermissionDenied("no key")], ids=repr)
def test_a_request_whose_reply_cannot_be_protected_is_answered_with_an_error(
    kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    @virtual
    async def run() -> None:
        transport, work, message = FakeTransport(), Work(), delivery(kind)
        await received(receiver(kind, work, transport), message)
        (sent,) = transport.sent
        body: ErrorReply = decode(ErrorReply, sent.envelope.body)
        assert (body.code, body.retryable, body.maybe_executed) == (
            "failed_precondition",
            False,
            True,
        )
        assert SECRET not in body.message
        assert (work.runs, message.acks, message.requeues) == (1, 1, 0)

    protect = failing_once(MessageSecurity.protect_reply, error)
    monkeypatch.setattr(MessageSecurity, "protect_reply", protect)
    run()


@pytest.mark.parametrize("kind", ["add", "total"], ids=["at most once", "idempotent"])
def test_a_request_that_cannot_be_answered_at_all_ends_at_its_callers_deadline(kind: str) -> None:
    @virtual
    async def run() -> None:
        work, message = Work(), delivery(kind)
        here = receiver(kind, work, FakeTransport(answer=refuse))
        await received(here, message)
        assert (work.runs, message.acks, message.requeues) == (1, 1, 0)
        assert here.state.slots.free == 1

    run()


# --- Stages ---


FAULTS = [(broken, "KeyError"), (exiting, "SystemExit")]


def break_stage(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]) -> None:
    def stage(_state: Any) -> Any:
        return lambda _inner: fault

    monkeypatch.setattr("bus.runtime.inbound.INBOUND", (stage,))


@pytest.mark.parametrize(("fault", "error"), FAULTS)
@pytest.mark.parametrize("kind", ["event", "job"])
def test_a_fault_in_a_stage_is_retried_by_the_policy_and_then_dead_lettered(
    kind: str,
    fault: Callable[..., Any],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @virtual
    async def run() -> None:
        transport, work = FakeTransport(), Work()
        here, first, last = (
            receiver(kind, work, transport),
            delivery(kind),
            delivery(kind, attempt=3),
        )
        await received(here, first, last)
        (copy,) = to(transport, "ledger.retry.1s")
        (dead,) = to(transport, "bus.dead")
        assert (copy.attempt, dead.headers["dead-error"]) == (2, error)
        assert (work.runs, first.acks, last.acks) == (0, 1, 1)

    break_stage(monkeypatch, fault)
    run()
    assert SECRET not in caplog.text


@pytest.mark.parametrize("fault", [broken, exiting])
@pytest.mark.parametrize("kind", ["add", "total"], ids=["at most once", "idempotent"])
def test_a_request_that_meets_a_fault_in_a_stage_is_answered(
    kind: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    @virtual
    async def run() -> None:
        transport, message = FakeTransport(), delivery(kind)
        await received(receiver(kind, Work(), transport), message)
        assert (transport.sent[0].envelope.error, message.acks) == ("internal", 1)

    break_stage(monkeypatch, fault)
    run()


class BrokenInbox:
    """An inbox whose store is away."""

    find = add = broken


class ExitingInbox:
    """An inbox that calls `sys.exit`."""

    find = add = exiting


class ExitingOnce:
    """An inbox whose first call ends with `sys.exit`."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def find(self, _key: object) -> None:
        self._exit_first("find")

    async def add(self, _key: object, _handled: object) -> None:
        self._exit_first("add")

    def _exit_first(self, name: str) -> None:
        self.calls.append(name)
        if self.calls.count(name) == 1:
            exiting()


@pytest.mark.parametrize("inbox", [BrokenInbox(), ExitingInbox()])
def test_an_inbox_that_fails_dead_letters_no_message(inbox: Any) -> None:
    @virtual
    async def run() -> None:
        transport, message = FakeTransport(), delivery("event")
        await received(receiver("event", Work(), transport, inbox=inbox), message)
        assert (message.acks, message.requeues, message.counted, transport.sent) == (0, 1, 0, [])
        assert asyncio.get_running_loop().time() > INBOX_RETRY_SECONDS

    run()


def test_an_inbox_that_exits_once_is_called_again_and_the_handler_runs_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @virtual
    async def run() -> None:
        transport, message, inbox, work = FakeTransport(), delivery("event"), ExitingOnce(), Work()
        await received(receiver("event", work, transport, inbox=inbox), message)
        assert (inbox.calls, work.runs) == (["find", "find", "add", "add"], 1)
        assert (message.acks, message.requeues) == (1, 0)

    run()
    assert SECRET not in caplog.text


@pytest.mark.parametrize("kind", ["event", "job"])
def test_a_settlement_that_exits_ends_as_a_settlement_with_another_fault(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def decide(*_: Any, **__: Any) -> Any:
        tries.append(1)
        exiting()

    @virtual
    async def run() -> None:
        transport, message = FakeTransport(), delivery(kind)
        await received(receiver(kind, Work(ValueError(SECRET)), transport), message)
        (dead,) = to(transport, "bus.dead")
        assert str(dead.headers["dead-reason"]).endswith("because of SystemExit")
        assert (len(tries), message.acks, message.requeues) == (MAX_SETTLE_TRIES, 1, 0)

    monkeypatch.setattr(settler, "decide", decide)
    run()
    assert SECRET not in caplog.text


@virtual
async def test_a_request_whose_reply_and_error_reply_exit_is_not_handled_again() -> None:
    transport, message, work = FakeTransport(answer=exiting), delivery("total"), Work()
    await received(receiver("total", work, transport), message)
    assert (work.runs, message.acks, message.requeues) == (1, 1, 0)


# --- On a broker ---


def test_a_message_that_nothing_can_settle_ends_at_the_brokers_delivery_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = MemoryTransport.send

    async def no_copies(self: Any, message: Envelope, address: Any, **options: Any) -> Any:
        if address.exchange in ("bus.dead", "ledger.retry.1s"):
            raise KeyError(SECRET)
        return await send(self, message, address, **options)

    @in_memory
    async def run(buses: MemoryBuses) -> None:
        router, work = Router("ledger"), Work(ValueError(SECRET))
        router.event(BooksClosed)(work)
        ledger = await buses.bus("ledger")
        await buses.serve(ledger, router)
        await ledger.publish(BooksClosed())
        await until(lambda: buses.broker.depth(f"{EVENTS}.dead") == 1, "the dead letter")
        (letter,) = await ledger.dead_letters(EVENTS)
        assert (letter.record.by, letter.record.code, work.runs) == ("broker", "delivery_limit", 1)
        assert DELIVERY_LIMIT == 100

    monkeypatch.setattr(MemoryTransport, "send", no_copies)
    run()
