import asyncio
import gc
import weakref
from collections.abc import Callable
from datetime import timedelta
from math import inf, nan
from typing import Any

import pytest

from bus.contracts.contract import Event, Message, contract_of
from bus.errors import (
    BusError,
    ConfigurationError,
    ConnectionLost,
    ContractError,
    ContractViolation,
    DeadlineExceeded,
    Internal,
    NotFound,
    NotServed,
    ResourceExhausted,
    Unavailable,
)
from bus.messaging.envelope import Envelope, error_reply, reply
from bus.messaging.handler import Handler
from bus.messaging.ports.transport import Accepted, Nacked, PublishOutcome, Returned
from bus.middleware.stacks import client_stack
from bus.runtime.client import Client
from bus.settings import load_settings
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, runtime_of, settle_down, virtual
from tests.unit.ledger import Add, BooksClosed, Clear, CloseBooks, GetTotal, Total

SETTINGS = load_settings(request_timeout=10, publish_timeout=10, message_ttl=100)
REMEDY = "Pass an object of a class with @contract(name, version=…)."
RETURNED, REFUSED = Returned(reason="NO_ROUTE"), Nacked(reason="basic.nack")


def a_class(verb: str, name: str) -> str:
    """Return the text of the error if a caller passes the class `name`."""
    return (
        f"{verb} takes a message, such as {name}(…), not the class {name}. "
        f"Write bus.{verb}({name}(…))."
    )


async def started(transport: FakeTransport, service: str = "office") -> Client:
    loop = asyncio.get_running_loop()

    def clock() -> float:
        return NOW + loop.time()

    runtime = runtime_of(transport, service=service, settings=SETTINGS, clock=clock)
    client = Client(runtime, client_stack(clock=clock))
    await client.start()
    return client


def answering(answer: Callable[[Envelope], Envelope], *, after: float = 0) -> FakeTransport:
    """Return a transport with a server that answers each request after `after` seconds."""
    transport = FakeTransport()

    def deliver(sent: Envelope) -> None:
        transport.deliver(FakeDelivery(answer(sent)))

    def take(sent: Envelope) -> PublishOutcome | None:
        asyncio.get_running_loop().call_later(after, deliver, sent)
        return None

    transport.answer = take
    return transport


def total(sent: Envelope) -> Envelope:
    return reply(sent, Total(total=7), source="ledger")


@virtual
async def test_a_request_gets_its_reply() -> None:
    transport = answering(total)
    assert await (await started(transport)).request(Add(amount=7)) == Total(total=7)
    (sent,) = transport.sent
    assert (sent.envelope.type, sent.envelope.source, sent.envelope.body) == (
        "ledger.add.v1",
        "office",
        b'{"amount":7}',
    )
    assert (sent.envelope.reply_to, sent.envelope.expiration) == ("office.replies.host-1", 10_000)
    assert (sent.envelope.deadline, sent.address.exchange, sent.timeout) == (
        int(NOW * 1000) + 10_000,
        "bus.requests",
        10,
    )


@virtual
async def test_the_expiration_of_a_request_with_a_very_long_timeout_is_49_days() -> None:
    """Send with a timeout of months: RabbitMQ closes the channel for a much longer expiration."""
    transport = answering(total)
    assert await (await started(transport)).request(Add(amount=7), timeout=1e7) == Total(total=7)
    (sent,) = transport.sent
    assert (sent.envelope.expiration, sent.timeout) == (2**32 - 1, 1e7)


@virtual
async def test_a_reply_without_content_is_none() -> None:
    client: Any = await started(answering(lambda sent: reply(sent, None, source="ledger")))
    assert await client.request(Clear()) is None


def sending(client: Client, send: str) -> Callable[[], Any]:
    """Return a call of one of the three methods that send."""
    calls: dict[str, Callable[[], Any]] = {
        "request": lambda: client.request(Add()),
        "publish": lambda: client.publish(BooksClosed()),
        "submit": lambda: client.submit(CloseBooks()),
    }
    return calls[send]


@pytest.mark.parametrize("send", ["request", "publish", "submit"])
def test_what_no_queue_takes_is_an_error_at_once(send: str) -> None:
    @virtual
    async def run() -> None:
        client = await started(FakeTransport(answer=lambda _: RETURNED), service="ledger")
        with pytest.raises(NotServed, match=RETURNED.reason):
            await sending(client, send)()
        assert asyncio.get_running_loop().time() == 0
        assert not client.replies._calls

    run()


@pytest.mark.parametrize("send", ["publish", "submit"])
def test_what_the_broker_refuses_is_offered_until_its_deadline_and_then_unknown(send: str) -> None:
    @virtual
    async def run() -> None:
        client = await started(FakeTransport(answer=lambda _: REFUSED), service="ledger")
        with pytest.raises(ResourceExhausted, match=REFUSED.reason) as refused:
            await sending(client, send)()
        assert 8 < asyncio.get_running_loop().time() <= 10
        assert refused.value.maybe_executed

    run()


@virtual
async def test_a_request_that_comes_back_later_is_not_served() -> None:
    transport = FakeTransport()
    client = await started(transport)
    asking = asyncio.create_task(client.request(Add()))
    await settle_down()
    client.replies.on_return(transport.sent[0].envelope.id, "NO_ROUTE")
    with pytest.raises(NotServed):
        await asking


@virtual
async def test_a_handlers_error_is_the_callers() -> None:
    transport = answering(
        lambda sent: error_reply(sent, NotFound("no such account"), source="ledger")
    )
    with pytest.raises(NotFound, match="no such account"):
        await (await started(transport)).request(Add())


@pytest.mark.parametrize("after", [0, 20])
@virtual
async def test_the_error_of_a_request_is_freed_without_the_garbage_collector(after: float) -> None:
    """Fail with the error of the service at once, and with a timeout."""
    fault = NotFound("no such account")
    client = await started(
        answering(lambda sent: error_reply(sent, fault, source="ledger"), after=after)
    )
    errors: list[weakref.ref[BusError]] = []
    gc.collect()
    gc.disable()
    try:
        try:
            await client.request(GetTotal())
        except BusError as error:
            errors.append(weakref.ref(error))
        await asyncio.sleep(1)  # the timer of the timeout keeps it for a moment
        assert [error() for error in errors] == [None]
    finally:
        gc.enable()


@virtual
async def test_a_request_ends_at_its_deadline_and_says_that_it_may_have_happened() -> None:
    client = await started(answering(total, after=3))
    with pytest.raises(DeadlineExceeded) as caught:
        await client.request(Add(), timeout=2)
    assert caught.value.maybe_executed
    assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.01)
    await asyncio.sleep(2)
    assert client.replies.late == 1


@virtual
async def test_no_time_is_no_time_and_not_the_default() -> None:
    transport = FakeTransport()
    client = await started(transport, service="ledger")
    for call in (
        client.request(Add(), timeout=0),
        client.publish(BooksClosed(), timeout=0),
        client.submit(CloseBooks(), timeout=0),
    ):
        with pytest.raises(DeadlineExceeded):
            await call
    assert transport.sent == []


WRONG_SECONDS: list[Any] = [inf, -inf, nan, -1, -0.001, 1e300, True, "5", timedelta(seconds=5), ()]


@pytest.mark.parametrize("timeout", WRONG_SECONDS, ids=repr)
@pytest.mark.parametrize(
    ("verb", "message", "kind"),
    [
        ("request", Add(), "ledger.add.v1"),
        ("publish", BooksClosed(), "ledger.closed.v1"),
        ("submit", CloseBooks(), "ledger.close.v1"),
    ],
    ids=["request", "publish", "submit"],
)
def test_a_timeout_that_is_no_finite_number_is_refused_with_its_name_and_the_message(
    verb: str, message: Message, kind: str, timeout: Any
) -> None:
    @virtual
    async def run() -> None:
        transport = FakeTransport()
        client = await started(transport, service="ledger")
        with pytest.raises(ConfigurationError) as refused:
            await getattr(client, verb)(message, timeout=timeout)
        assert str(refused.value).startswith(f"{kind}: timeout must be a number of seconds from 0")
        assert transport.sent == []

    run()


@virtual
async def test_a_connection_that_goes_while_waiting_fails_the_call_at_once() -> None:
    transport = FakeTransport()
    client = await started(transport)
    asking = asyncio.create_task(client.request(Add()))
    await settle_down()
    client.replies.on_connection_lost()
    with pytest.raises(ConnectionLost) as caught:
        await asking
    assert caught.value.maybe_executed


@virtual
async def test_a_connection_that_goes_while_sending_fails_the_call_and_leaves_no_noise() -> None:
    transport = FakeTransport()
    client = await started(transport)

    def lose(_: Envelope) -> PublishOutcome:
        client.replies.on_connection_lost()
        return Accepted()

    def lose_and_fail(_: Envelope) -> PublishOutcome:
        client.replies.on_connection_lost()
        raise ConnectionLost("gone", maybe_executed=True)

    for transport.answer in (lose, lose_and_fail):
        with pytest.raises(ConnectionLost):
            await client.request(Add())


@virtual
async def test_an_idempotent_request_is_asked_again_with_the_time_that_is_left() -> None:
    transport = answering(lambda sent: reply(sent, Total(total=1), source="ledger"))
    client = await started(transport)
    working = transport.answer

    def lose_first(sent: Envelope) -> PublishOutcome | None:
        transport.answer = working
        asyncio.get_running_loop().call_later(4, client.replies.on_connection_lost)
        return None

    transport.answer = lose_first
    assert await client.request(GetTotal()) == Total(total=1)
    first, second = (sent.envelope for sent in transport.sent)
    assert (first.id, first.deadline) == (second.id, second.deadline)
    assert first.expiration == 10_000
    assert second.expiration is not None
    assert second.expiration <= 6_000


@virtual
async def test_a_request_waits_for_its_reply_queue_and_no_longer_than_its_time() -> None:
    transport = answering(total)
    transport.consumption.ready = False
    client = await started(transport)
    with pytest.raises(Unavailable, match="not sent"):
        await client.request(Add(), timeout=3)
    assert transport.sent == []
    assert asyncio.get_running_loop().time() == pytest.approx(3)


@virtual
async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    transport = FakeTransport()
    client = await started(transport)
    asking = asyncio.create_task(client.request(Add()))
    await settle_down()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not client.replies._calls


@virtual
async def test_a_bus_that_is_not_started_says_so() -> None:
    client = Client(runtime_of(FakeTransport(), service="office", settings=SETTINGS), [])
    with pytest.raises(Unavailable, match="async with Bus"):
        await client.request(Add())


@virtual
async def test_an_event_is_published_by_its_owner_alone() -> None:
    transport = FakeTransport()
    await (await started(transport, service="ledger")).publish(BooksClosed())
    (sent,) = transport.sent
    assert (sent.address.exchange, sent.address.mandatory, sent.envelope.expires) == (
        "bus.events",
        False,
        int(NOW * 1000) + 100_000,
    )
    assert (sent.envelope.reply_to, sent.envelope.expiration) == (None, None)
    with pytest.raises(ContractError, match="belongs to ledger"):
        await (await started(transport)).publish(BooksClosed())


@virtual
async def test_a_job_gives_a_handle_that_hears_of_it() -> None:
    transport = answering(total)
    job = await (await started(transport)).submit(CloseBooks())
    assert await job.result() == Total(total=7)
    assert transport.sent[0].envelope.reply_to == "office.replies.host-1"


@virtual
async def test_each_kind_has_its_verb() -> None:
    client: Any = await started(FakeTransport())
    for call, verb in (
        (client.request(BooksClosed()), "publish"),
        (client.publish(Add()), "request"),
        (client.request(CloseBooks()), "submit"),
    ):
        with pytest.raises(
            ContractError, match=rf"of kind \w+, not \w+\. Send it with bus\.{verb}\("
        ):
            await call


@virtual
async def test_an_undecorated_message_is_not_sent() -> None:
    class Undecorated(Event): ...

    with pytest.raises(ContractError, match="Decorate it"):
        await (await started(FakeTransport())).publish(Undecorated())


@virtual
@pytest.mark.parametrize(
    ("verb", "given", "told"),
    [
        ("request", GetTotal, a_class("request", "GetTotal")),
        ("publish", BooksClosed, a_class("publish", "BooksClosed")),
        ("publish", "text", f"publish takes an Event, not str. {REMEDY}"),
        ("submit", {"a": 1}, f"submit takes a Job, not dict. {REMEDY}"),
        ("request", None, f"request takes a Request, not None. {REMEDY}"),
        ("request", int, f"request takes a Request, not the class int. {REMEDY}"),
    ],
)
async def test_an_object_that_is_not_a_message_is_refused_by_the_name_of_the_method(
    verb: str, given: object, told: str
) -> None:
    client = await started(transport := FakeTransport(), "ledger")
    with pytest.raises(ContractError) as raised:
        await getattr(client, verb)(given)
    assert str(raised.value) == told
    assert not transport.sent


@virtual
async def test_a_message_that_does_not_fit_its_contract_is_not_sent() -> None:
    transport = FakeTransport()
    with pytest.raises(ContractViolation):
        await (await started(transport)).request(Add.model_construct(amount="much"))
    assert transport.sent == []


@virtual
async def test_a_layer_that_swallows_the_answer_is_told() -> None:
    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> None:
            await inner(envelope)

        return call

    transport = answering(total)
    client = Client(runtime_of(transport, service="office", settings=SETTINGS), [layer])
    await client.start()
    with pytest.raises(Internal, match="client stack"):
        await client.request(Add())
    assert len(transport.sent) == 1


def test_the_contracts_of_these_tests_are_what_they_say() -> None:
    assert contract_of(GetTotal).idempotent
    assert not contract_of(Add).idempotent


@virtual
async def test_a_reply_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    forged = "ledger.add.v1.reply\n2026-01-31 [error] forged"
    transport = answering(
        lambda sent: total(sent).replace(type=forged, headers={"encryption": "none"})
    )
    with pytest.raises(DeadlineExceeded):
        await (await started(transport)).request(Add(), timeout=1)
    (line,) = [each.getMessage() for each in caplog.records if "decrypted" in each.getMessage()]
    assert "\n" not in line
