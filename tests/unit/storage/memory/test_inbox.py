from typing_extensions import override

from bus.errors import FailedPrecondition, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.messaging.ports.transport import PublishOutcome
from bus.runtime.router import Router
from bus.storage.memory.inbox import MemoryInbox
from tests.unit.fakes import FakeTransport, envelope, receiver_of, settle_down, virtual
from tests.unit.ledger import Add, CloseBooks
from tests.unit.runtime.test_receiver import (
    Work,
    asked,
    asked_again,
    idempotent,
    job,
    ordered,
    received,
)


def key(number: int) -> MessageKey:
    return MessageKey("ledger.jobs.close.v1", "office", str(number))


def reply(size: int) -> HandledMessage:
    return HandledMessage(reply=envelope("ledger.total.v1.reply", role="reply", body=b"x" * size))


class Lasting:
    """Store without limits."""

    def __init__(self) -> None:
        self.known: dict[MessageKey, HandledMessage] = {}

    async def find(self, key: MessageKey) -> HandledMessage | None:
        return self.known.get(key)

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        self.known[key] = handled


@virtual
async def test_the_oldest_messages_are_forgotten_first() -> None:
    inbox = MemoryInbox(most_messages=3)
    for number in range(5):
        await inbox.add(key(number), HandledMessage())
    assert [await inbox.find(key(number)) for number in range(5)] == [
        None,
        None,
        HandledMessage(),
        HandledMessage(),
        HandledMessage(),
    ]


@virtual
async def test_replies_take_no_more_than_their_share() -> None:
    inbox = MemoryInbox(most_bytes=100)
    for number in range(5):
        await inbox.add(key(number), reply(40))
    assert len(inbox) == 2
    await inbox.add(key(4), reply(90))  # replaces the previous reply of this key
    assert len(inbox) == 1
    await inbox.add(key(5), reply(101))
    assert len(inbox) == 0
    await inbox.add(key(6), reply(100))
    assert len(inbox) == 1


@virtual
async def test_another_senders_message_is_another() -> None:
    inbox = MemoryInbox()
    await inbox.add(key(1), HandledMessage())
    assert await inbox.find(key(1)._replace(source="stranger")) is None
    assert await inbox.find(key(1)._replace(queue="ledger.events.closed.v1")) is None


@virtual
async def test_a_job_that_was_handled_is_acked_and_not_handled_again_whatever_its_attempt() -> None:
    transport, work = FakeTransport(), Work()
    receiver, copies = job(work, transport), [ordered(), ordered(), ordered(attempt=2)]
    for copy in copies:
        await received(receiver, copy)
    assert len(work.began) == 1
    assert [copy.acks for copy in copies] == [1, 1, 1]
    assert len(transport.sent) == 1  # the result, sent once


@virtual
async def test_an_idempotent_requests_duplicate_gets_the_same_answer_where_it_waits_for_it() -> (
    None
):
    transport, work = FakeTransport(), Work()
    receiver = idempotent(work, transport)
    await received(
        receiver, asked_again(reply_to="office.replies.1"), asked_again(reply_to="office.replies.2")
    )
    await received(receiver, asked_again(reply_to="office.replies.3"))
    first, *others = transport.sent
    assert len(work.began) == 1
    assert [sent.address.routing_key for sent in transport.sent][-1] == "office.replies.3"
    assert {other.envelope.body for other in others} == {first.envelope.body}


@virtual
async def test_what_failed_is_not_remembered() -> None:
    transport, work = FakeTransport(), Work(error=FailedPrecondition("not yet"))
    receiver = job(work, transport)
    await received(receiver, ordered())
    await received(receiver, ordered())  # a replay by an operator has the same id
    assert len(work.began) == 2


@virtual
async def test_a_message_that_cannot_be_looked_up_goes_back_and_is_not_handled() -> None:
    class Broken(MemoryInbox):
        @override
        async def find(self, key: MessageKey) -> HandledMessage | None:
            raise OSError("the store is away")

    router, work, delivery = Router("ledger"), Work(), ordered()
    router.job(CloseBooks)(work)
    await received(receiver_of(router, FakeTransport(), inbox=Broken()), delivery)
    assert (work.began, delivery.acks, delivery.requeues) == ([], 0, 1)


@virtual
async def test_a_request_that_may_run_once_is_not_looked_up() -> None:
    class Counting(MemoryInbox):
        found = 0

        @override
        async def find(self, key: MessageKey) -> HandledMessage | None:
            self.found += 1
            return await super().find(key)

    router, work, inbox = Router("ledger"), Work(), Counting()
    router.request(Add)(work)
    await received(receiver_of(router, FakeTransport(), inbox=inbox), asked())
    assert (len(work.began), inbox.found, len(inbox)) == (1, 0, 0)


@virtual
async def test_a_result_that_was_not_sent_before_its_process_ended_is_sent_at_redelivery() -> None:
    """A store may outlast the process.

    The redelivered message is acked, and no other process sends the result.
    """

    def never(_: Envelope) -> PublishOutcome:
        raise Unavailable("down")

    router, work, inbox, transport = (
        Router("ledger"),
        Work(),
        Lasting(),
        FakeTransport(answer=never),
    )
    router.job(CloseBooks)(work)
    first, again = ordered(), ordered()
    doomed = receiver_of(router, transport, inbox=inbox)
    doomed.on_delivery(first)
    await settle_down()
    doomed.cancel_running()
    await doomed.drain()
    transport.answer = lambda _: None
    await received(receiver_of(router, transport, inbox=inbox), again)
    assert (len(work.began), first.acks, again.acks) == (1, 0, 1)
    assert (transport.sent[-1].envelope.type, transport.sent[-1].envelope.body) == (
        "ledger.close.v1.reply",
        b'{"total":1}',
    )
    assert len(transport.sent) == 2
