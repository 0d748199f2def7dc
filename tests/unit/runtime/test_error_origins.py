"""The origin of each error that a caller can get: this process, the broker or the service."""

import ast
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bus.transports
from bus import errors
from bus.errors import (
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    Executed,
    InvalidArgument,
    NotFound,
    Origin,
    PermissionDenied,
    Unavailable,
    executed_of,
)
from bus.messaging.envelope import Envelope, error_reply, reply
from bus.messaging.error_state import mark_as_broker_error
from bus.messaging.ports.transport import Nacked, PublishOutcome, Returned
from bus.middleware.stacks import client_stack
from bus.runtime.client import Client
from bus.settings import load_settings
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, runtime_of, settle_down, virtual
from tests.unit.ledger import Add, BooksClosed, CloseBooks, Total

SETTINGS = load_settings(request_timeout=10, publish_timeout=10, message_ttl=100)


async def client_of(
    transport: FakeTransport, service: str = "office", *, is_started: bool = True
) -> Client:
    loop = asyncio.get_running_loop()

    def clock() -> float:
        return NOW + loop.time()

    runtime = runtime_of(transport, service=service, settings=SETTINGS, clock=clock)
    client = Client(runtime, client_stack(clock=clock))
    if is_started:
        await client.start()
    return client


def raising(error: BusError) -> FakeTransport:
    def fail(_sent: Envelope) -> PublishOutcome:
        raise error

    return FakeTransport(answer=fail)


def answering(answer: Callable[[Envelope], Envelope]) -> FakeTransport:
    transport = FakeTransport()

    def take(sent: Envelope) -> None:
        delivery = FakeDelivery(answer(sent))
        asyncio.get_running_loop().call_soon(transport.deliver, delivery)

    transport.answer = take
    return transport


def invalid(sent: Envelope) -> Envelope:
    return reply(sent, None, source="ledger").replace(body=b"7")


def wrong_type(sent: Envelope) -> Envelope:
    return reply(sent, Total(total=1), source="ledger").replace(type="ledger.close.v1.reply")


def invalid_error(sent: Envelope) -> Envelope:
    return error_reply(sent, NotFound("x"), source="ledger").replace(body=b"{}")


def is_lost(client: Client, _id: str) -> None:
    client.replies.on_connection_lost()


def is_closed(client: Client, _id: str) -> None:
    client.close()


def is_refused(client: Client, id_: str) -> None:
    client.replies.on_publish_failed(id_, PermissionDenied("refused", maybe_executed=True))


def is_returned(client: Client, id_: str) -> None:
    client.replies.on_return(id_, "NO_ROUTE")


async def error_of(call: Any) -> BusError:
    with pytest.raises(BusError) as raised:
        await call
    return raised.value


@pytest.mark.parametrize(
    ("transport", "origin", "executed"),
    [
        (answering(lambda sent: error_reply(sent, NotFound("x"), source="l")), "service", "maybe"),
        (answering(invalid), "service", "maybe"),
        (answering(wrong_type), "service", "maybe"),
        (answering(invalid_error), "service", "maybe"),
        (FakeTransport(), "service", "maybe"),
        (FakeTransport(answer=lambda _: Nacked(reason="basic.nack")), "broker", "maybe"),
        (FakeTransport(answer=lambda _: Returned(reason="NO_ROUTE")), "broker", "no"),
        (raising(Unavailable("no connection")), "broker", "no"),
        (raising(ConnectionLost("lost", maybe_executed=True)), "broker", "maybe"),
        (raising(DeadlineExceeded("not confirmed", maybe_executed=True)), "broker", "maybe"),
        (raising(PermissionDenied("refused")), "broker", "no"),
        (raising(InvalidArgument("too large")), "local", "no"),
    ],
    ids=[
        *("error reply", "invalid reply", "wrong reply", "invalid error", "no reply"),
        *("nack", "return", "no connection", "lost", "no confirm", "refused", "too large"),
    ],
)
def test_an_error_of_a_request_tells_where_it_failed(
    transport: FakeTransport, origin: Origin, executed: Executed
) -> None:
    @virtual
    async def run() -> None:
        client = await client_of(transport)
        # A message that was certainly not sent, or an answer, must not be repeated here.
        error = await error_of(client.request(Add(), timeout=1))
        assert (error.origin, executed_of(error)) == (origin, executed)
        assert error.is_call_error

    run()


@pytest.mark.parametrize(
    ("happen", "origin", "executed"),
    [
        (is_lost, "broker", "maybe"),
        (is_refused, "broker", "maybe"),
        (is_returned, "broker", "no"),
        (is_closed, "local", "maybe"),
    ],
)
def test_an_error_of_a_request_that_waits_tells_where_it_failed(
    happen: Callable[[Client, str], None], origin: Origin, executed: Executed
) -> None:
    @virtual
    async def run() -> None:
        transport = FakeTransport()
        client = await client_of(transport)
        call = asyncio.ensure_future(client.request(Add(), timeout=1))
        await settle_down()
        happen(client, transport.sent[0].envelope.id)
        error = await error_of(call)
        assert (error.origin, executed_of(error)) == (origin, executed)

    run()


@virtual
async def test_a_request_without_a_connection_fails_at_the_broker() -> None:
    transport = FakeTransport()
    client = await client_of(transport)
    transport.consumption.ready = False
    error = await error_of(client.request(Add(), timeout=1))
    assert (error.origin, executed_of(error)) == ("broker", "no")


@virtual
async def test_an_error_of_this_process_is_local() -> None:
    client = await client_of(FakeTransport())
    unstarted = await client_of(FakeTransport(), is_started=False)
    calls: list[Any] = [
        client.request(Add(), timeout=0),
        client.request(Add.model_construct(amount="x")),
        client.request(Add(), timeout=-1),
        unstarted.request(Add()),
    ]
    for call in calls:
        error = await error_of(call)
        assert (error.origin, executed_of(error)) == ("local", "no")


@pytest.mark.parametrize(
    ("error", "origin"),
    [
        (Unavailable("blocked"), "broker"),
        (DeadlineExceeded("not confirmed", maybe_executed=True), "broker"),
        (InvalidArgument("too large"), "local"),
    ],
)
def test_an_error_of_an_event_or_job_tells_where_it_failed(error: BusError, origin: Origin) -> None:
    @virtual
    async def run() -> None:
        client = await client_of(raising(error), "ledger")
        for call in (client.publish(BooksClosed(), timeout=1), client.submit(CloseBooks())):
            assert (await error_of(call)).origin == origin

    run()


# --- Every place in the transports ---

ORIGINS: dict[str, Origin] = {
    "ConfigurationError": "local",
    "ConnectionLost": "broker",
    "DataLoss": "broker",
    "DeadlineExceeded": "broker",
    "FailedPrecondition": "local",
    "InvalidArgument": "local",
    "NotFound": "broker",
    "PermissionDenied": "broker",
    "ResourceExhausted": "broker",
    "TopologyMismatch": "local",
    "Unauthenticated": "broker",
    "Unavailable": "broker",
}
"""Origin of each error that a transport raises, after the client has marked it."""


def raised_in_transports() -> dict[str, list[str]]:
    """Return the places in the transports that create an error, by the class of the error."""
    names = {name for name, each in vars(errors).items() if is_error(each)}
    places: dict[str, list[str]] = {}
    for path in sorted(Path(bus.transports.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
                if name in names:
                    places.setdefault(name, []).append(f"{path.name}:{node.lineno}")
    return places


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BusError)


def test_every_error_that_a_transport_raises_has_an_origin() -> None:
    places = raised_in_transports()
    assert places.keys() == ORIGINS.keys(), places
    for name, origin in ORIGINS.items():
        error: BusError = getattr(errors, name)("text")
        mark_as_broker_error(error)
        assert error.origin == origin, name
