"""The errors that a sender catches begin with the type of the message."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typing_extensions import override

from bus import Bus, Context, NotFound, Request, Router, contract
from bus.contracts.contract import Catalog
from bus.errors import (
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgument,
    NotServed,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unknown,
)
from bus.messaging.envelope import Envelope, error_reply
from bus.messaging.handler import Handler
from bus.messaging.ports.transport import Nacked, PublishOutcome, Returned
from bus.runtime.client import Client
from bus.runtime.error_subject import add_subject, name_message
from bus.settings import load_settings
from bus.testing import MemoryBuses
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, runtime_of, settle_down, virtual
from tests.unit.ledger import Add, BooksClosed, CloseBooks, GetTotal, Total

SETTINGS = load_settings(request_timeout=10, publish_timeout=10, message_ttl=100)
catalog = Catalog()


async def started(transport: FakeTransport) -> Client:
    loop = asyncio.get_running_loop()
    runtime = runtime_of(
        transport, service="ledger", settings=SETTINGS, clock=lambda: NOW + loop.time()
    )
    client = Client(runtime, [])
    await client.start()
    return client


def failing(error: BusError) -> Callable[[Envelope], PublishOutcome]:
    def answer(_: Envelope) -> PublishOutcome:
        raise error

    return answer


def outcome(result: PublishOutcome) -> Callable[[Envelope], PublishOutcome]:
    return lambda _: result


SENDS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "ledger.add.v1": lambda client: client.request(Add(), timeout=2),
    "ledger.closed.v1": lambda client: client.publish(BooksClosed(), timeout=2),
    "ledger.close.v1": lambda client: client.submit(CloseBooks(), timeout=2),
}


@pytest.mark.parametrize("type_", SENDS)
@pytest.mark.parametrize(
    "answer",
    [
        failing(Unavailable("message not sent: the channel was closed")),
        failing(ConnectionLost("message not confirmed: reset by peer", maybe_executed=True)),
        failing(DeadlineExceeded("message not confirmed before the deadline")),
        failing(PermissionDenied("message not sent: access refused")),
        failing(InvalidArgument("the message has 17000000 bytes")),
        outcome(Returned(reason="NO_ROUTE")),
        outcome(Nacked(reason="basic.nack")),
    ],
)
def test_every_error_of_a_send_begins_with_the_type_of_the_message_once(
    type_: str, answer: Callable[[Envelope], PublishOutcome]
) -> None:
    @virtual
    async def run() -> None:
        transport = FakeTransport(answer=answer)
        client = await started(transport)
        with pytest.raises(BusError) as caught:
            await SENDS[type_](client)
        text = str(caught.value)
        job = f" (job {transport.sent[0].envelope.id})" if type_ == "ledger.close.v1" else ""
        assert text.startswith(f"{type_}{job}: ")
        assert text.count(type_) == 1

    run()


@pytest.mark.parametrize("type_", SENDS)
def test_a_value_that_does_not_fit_is_an_error_of_its_message(type_: str) -> None:
    broken = {
        "ledger.add.v1": lambda client: client.request(Add.model_construct(amount="x")),
        "ledger.closed.v1": lambda client: client.publish(BooksClosed.model_construct(year="x")),
        "ledger.close.v1": lambda client: client.submit(CloseBooks.model_construct(year="x")),
    }

    @virtual
    async def run() -> None:
        with pytest.raises(InvalidArgument, match=f"^{type_}: "):
            await broken[type_](await started(FakeTransport()))

    run()


@virtual
async def test_a_request_without_a_reply_names_its_type_and_its_time() -> None:
    client = await started(FakeTransport())
    with pytest.raises(DeadlineExceeded) as caught:
        await client.request(Add(), timeout=2)
    assert str(caught.value) == (
        "ledger.add.v1: no reply within 2 s. "
        "Check that the service runs and is not overloaded, or raise the timeout."
    )


@pytest.mark.parametrize(
    ("lose", "error", "text"),
    [
        (
            lambda client, _: client.replies.on_connection_lost(),
            ConnectionLost,
            "the connection to the broker was lost before the reply arrived. ",
        ),
        (
            lambda client, _: client.replies.close(),
            ConnectionLost,
            "the bus was closed before the reply arrived. ",
        ),
        (
            lambda client, sent: client.replies.on_return(sent.id, "NO_ROUTE"),
            NotServed,
            "no service serves it (NO_ROUTE). ",
        ),
        (
            lambda client, sent: client.replies.on_publish_failed(sent.id, PermissionDenied("no")),
            PermissionDenied,
            "no",
        ),
    ],
)
def test_a_call_that_fails_while_it_waits_names_its_type(
    lose: Callable[[Client, Envelope], None], error: type[BusError], text: str
) -> None:
    @virtual
    async def run() -> None:
        transport = FakeTransport()
        client = await started(transport)
        asking = asyncio.create_task(client.request(Add()))
        await settle_down()
        lose(client, transport.sent[0].envelope)
        with pytest.raises(error) as caught:
            await asking
        assert str(caught.value).startswith(f"ledger.add.v1: {text}")

    run()


@virtual
async def test_a_request_that_is_not_sent_names_its_type() -> None:
    transport = FakeTransport()
    transport.consumption.ready = False
    client = await started(transport)
    with pytest.raises(Unavailable, match=r"^ledger\.add\.v1: the request was not sent, because"):
        await client.request(Add(), timeout=3)


def answering(error: BusError) -> FakeTransport:
    transport = FakeTransport()

    def answer(sent: Envelope) -> None:
        reply = FakeDelivery(error_reply(sent, error, source="ledger"))
        asyncio.get_running_loop().call_soon(transport.deliver, reply)

    transport.answer = answer
    return transport


@pytest.mark.parametrize(
    ("remote", "text"),
    [
        ("no such account", "ledger.add.v1: no such account"),
        ("ledger.add.v1: no such account", "ledger.add.v1: no such account"),
        ("ledger.add.v1 is not served", "ledger.add.v1 is not served"),
        ("ledger.add.v10: no such bank", "ledger.add.v1: ledger.add.v10: no such bank"),
        ("bank.get.v1: no such bank", "ledger.add.v1: bank.get.v1: no such bank"),
    ],
)
def test_an_error_of_the_service_gets_the_type_unless_it_begins_with_it(
    remote: str, text: str
) -> None:
    @virtual
    async def run() -> None:
        client = await started(answering(NotFound(remote)))
        with pytest.raises(NotFound) as caught:
            await client.request(Add())
        assert str(caught.value) == text

    run()


@pytest.mark.parametrize(
    ("remote", "rest"),
    [
        ("no such year", ": no such year"),
        ("ledger.close.v1: no such year", ": no such year"),
        ("ledger.close.v1 (job 7): no such year", ": no such year"),
        ("bank.get.v1: no such bank", ": bank.get.v1: no such bank"),
    ],
)
def test_an_error_of_a_job_begins_with_its_type_and_id(remote: str, rest: str) -> None:
    @virtual
    async def run() -> None:
        job = await (await started(answering(NotFound(remote)))).submit(CloseBooks())
        with pytest.raises(NotFound) as caught:
            await job.result()
        assert str(caught.value) == f"ledger.close.v1 (job {job.id}){rest}"

    run()


@virtual
async def test_a_reply_that_does_not_match_the_contract_leaves_the_outcome_in_doubt() -> None:
    transport = answering(NotFound())

    def answer(sent: Envelope) -> None:
        body = b'{"total": "much"}'
        reply = error_reply(sent, NotFound(), source="ledger").replace(
            type=f"{sent.type}.reply", body=body, error=None
        )
        asyncio.get_running_loop().call_soon(transport.deliver, FakeDelivery(reply))

    transport.answer = answer
    client = await started(transport)
    with pytest.raises(InvalidArgument) as caught:
        await client.request(Add())
    assert str(caught.value) == "ledger.add.v1: invalid reply: total: must be an integer."
    assert caught.value.maybe_executed
    job = await client.submit(CloseBooks())
    with pytest.raises(InvalidArgument) as caught:
        await job.result()
    assert caught.value.maybe_executed
    assert str(caught.value) == (
        f"ledger.close.v1 (job {job.id}): invalid result: total: must be an integer."
    )


@virtual
async def test_the_text_of_the_service_can_be_read_without_the_type() -> None:
    client = await started(answering(NotFound("no such account")))
    with pytest.raises(NotFound) as caught:
        await client.request(Add())
    assert caught.value.detail == "no such account"
    job = await client.submit(CloseBooks())
    with pytest.raises(NotFound) as caught:
        await job.result()
    assert caught.value.detail == "no such account"
    assert (NotFound("x").detail, NotFound().detail) == ("x", "not found")


def test_an_error_of_an_application_may_have_a_detail_of_its_own() -> None:
    class Quota(Unknown):
        def __init__(self, detail: str) -> None:
            self.detail = detail
            super().__init__("the quota is used up")

    error = Quota("tenant 7")
    name_message(error, "ledger.add.v1")
    assert (str(error), error.detail) == ("ledger.add.v1: the quota is used up", "tenant 7")


async def test_a_failure_behind_two_calls_names_each_call_once() -> None:
    ledger, desk = Router("ledger"), Router("desk")

    @contract("desk.audit", version=1, catalog=catalog)
    class DeskAudit(Request[Total]):
        """Calls the ledger."""

    @ledger.request(GetTotal)
    async def get(_: GetTotal) -> Total:
        raise NotFound("no such account")

    @desk.request(DeskAudit)
    async def audit(_: DeskAudit, context: Context) -> Total:
        return await context.bus.request(GetTotal())

    async with MemoryBuses() as buses:
        for router in (ledger, desk):
            await buses.serve(await buses.bus(router.name), router)
        caller: Bus = await buses.bus("caller")
        with pytest.raises(NotFound) as caught:
            await caller.request(DeskAudit())
    assert str(caught.value) == "desk.audit.v1: ledger.total.v1: no such account"


@dataclass
class Limit(Unknown):
    """Composes its text itself."""

    tenant: str

    @override
    def __str__(self) -> str:
        return f"{self.tenant} sends too much"


@virtual
async def test_an_error_that_a_middleware_raises_again_and_again_does_not_grow() -> None:
    limit = ResourceExhausted("too much")

    def refuse(_: Handler) -> Handler:
        async def call(_: Envelope) -> None:
            raise limit

        return call

    client = Client(runtime_of(FakeTransport(), service="ledger", settings=SETTINGS), [refuse])
    await client.start()
    for _ in range(3):
        for send in SENDS.values():
            with pytest.raises(ResourceExhausted) as caught:
                await send(client)
            assert caught.value is limit
    assert [str(limit).count(type_) for type_ in SENDS] == [1, 1, 1]
    assert str(limit).endswith(": too much")


def test_an_error_that_composes_its_text_itself_stays_as_it_is() -> None:
    error = Limit("Quist")
    name_message(error, "ledger.add.v1")
    assert str(error) == "Quist sends too much"


def test_an_error_whose_class_refuses_another_text_stays_as_it_is() -> None:
    @dataclass(frozen=True)
    class Frozen(NotFound):
        reason: str

    class Unreadable(NotFound):
        @override
        def __str__(self) -> str:
            raise RuntimeError

    frozen = Frozen("no such account")
    name_message(frozen, "ledger.add.v1")
    assert (str(frozen), frozen.detail) == ("no such account", "no such account")
    name_message(Unreadable(), "ledger.add.v1")


def test_a_long_text_of_a_service_is_searched_in_linear_time() -> None:
    text = "desk.audit.v1:" + " ledger.add.v1 (job" * 20_000
    error, began = NotFound(text), time.perf_counter()
    name_message(error, "ledger.add.v1")
    assert time.perf_counter() - began < 2  # the square of the length takes 10 s
    assert error.detail == text


def test_the_id_of_a_job_is_added_to_a_text_that_begins_with_its_type() -> None:
    error = add_subject(Unavailable("ledger.close.v1 is not served"), "ledger.close.v1", "7")
    assert str(error) == "ledger.close.v1 (job 7) is not served"


@pytest.mark.parametrize("type_", SENDS)
def test_the_detail_of_an_error_of_the_bus_is_its_text_without_the_message(type_: str) -> None:
    @virtual
    async def run() -> None:
        client = await started(FakeTransport(answer=outcome(Returned(reason="NO_ROUTE"))))
        with pytest.raises(NotServed) as caught:
            await SENDS[type_](client)
        assert caught.value.detail.startswith("no service serves it (NO_ROUTE). ")

    run()


@virtual
async def test_the_detail_of_an_error_of_a_job_handle_has_no_id() -> None:
    job = await (await started(FakeTransport())).submit(CloseBooks())
    with pytest.raises(DeadlineExceeded) as caught:
        await job.result(timeout=3)
    assert caught.value.detail.startswith("no result within 3 s. ")


@contract("relay.ask", version=1, catalog=catalog)
class Ask(Request[None]):
    depth: int


async def test_the_type_is_named_once_if_a_handler_sends_its_own_request() -> None:
    relay = Router("relay")

    @relay.request(Ask)
    async def ask(request: Ask, context: Context) -> None:
        if request.depth == 0:
            raise NotFound("no such customer")
        await context.bus.request(Ask(depth=request.depth - 1))

    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("relay"), relay)
        with pytest.raises(NotFound) as raised:
            await (await buses.bus("reader")).request(Ask(depth=1))
    assert str(raised.value) == "relay.ask.v1: no such customer"
