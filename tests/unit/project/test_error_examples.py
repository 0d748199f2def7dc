"""The examples of texts in the reference of errors are what the bus writes."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ConfigDict

from bus import BusError, Event, Job, Message, NotFound, Request, contract
from bus.contracts.contract import Catalog, decode
from bus.errors import (
    ConnectionLost,
    ContractError,
    ContractViolation,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotServed,
    ResourceExhausted,
    Unavailable,
    Unknown,
)
from bus.messaging.body_limit import DEFAULT_MAX_BODY_BYTES, check_body
from bus.messaging.envelope import Envelope, error_reply
from bus.messaging.ports.transport import Nacked, PublishOutcome, Returned
from bus.runtime.client import Client
from bus.settings import load_settings
from bus.transports.rabbitmq.fastlane.confirm_channel import BLOCKED
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, runtime_of, settle_down, virtual

PAGE = (Path(__file__).parents[3] / "docs/reference/errors.md").read_text(encoding="utf-8")
SETTINGS = load_settings(request_timeout=2, publish_timeout=2)
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
catalog = Catalog()


class Price(Message):
    cents: int


@contract("billing.quote", version=1, catalog=catalog)
class Quote(Request[Price]):
    model_config = ConfigDict(extra="forbid")
    customer_id: UUID | None = None
    coupon: str = ""


@contract("billing.paid", version=1, catalog=catalog)
class Paid(Event):
    """Has no fields."""


@contract("billing.print", version=1, catalog=catalog)
class Print(Job[Price]):
    """Has no fields."""


Scene = Callable[[Client, FakeTransport], Awaitable[Any]]


def replying(body: Callable[[Envelope], Envelope]) -> Scene:
    async def scene(client: Client, transport: FakeTransport) -> None:
        def answer(sent: Envelope) -> None:
            asyncio.get_running_loop().call_soon(transport.deliver, FakeDelivery(body(sent)))

        transport.answer = answer
        await client.request(Quote())

    return scene


def refused(outcome: PublishOutcome | BusError, message: Quote | Print) -> Scene:
    async def scene(client: Client, transport: FakeTransport) -> None:
        def answer(_: Envelope) -> PublishOutcome:
            if isinstance(outcome, BusError):
                raise outcome
            return outcome

        transport.answer = answer
        await (client.request(message) if isinstance(message, Quote) else client.submit(message))

    return scene


async def lost(client: Client, _: FakeTransport) -> None:
    asking = asyncio.create_task(client.request(Quote()))
    await settle_down()
    client.replies.on_connection_lost()
    await asking


async def too_large(client: Client, transport: FakeTransport) -> None:
    def answer(sent: Envelope) -> PublishOutcome:
        check_body(sent.replace(body=bytes(20 * 1024 * 1024)), DEFAULT_MAX_BODY_BYTES)
        raise AssertionError("a message of 20 MiB was encoded")

    transport.answer = answer
    await client.request(Quote())


def refused_payload(sent: Envelope) -> Envelope:
    try:
        decode(Quote, b'{"customer_id": "7", "couponn": "x"}', subject=sent.type)
    except ContractViolation as error:
        return error_reply(sent, error, source="billing")
    raise AssertionError


SCENES: dict[type[BusError], Scene] = {
    InvalidArgument: too_large,
    ContractError: lambda client, _: client.publish(Paid()),
    NotFound: replying(lambda sent: error_reply(sent, NotFound("no such customer"), source="b")),
    ResourceExhausted: refused(Nacked(reason="basic.nack"), Print()),
    DeadlineExceeded: lambda client, _: client.request(Quote()),
    Unavailable: refused(Unavailable(BLOCKED), Quote()),
    NotServed: refused(Returned(reason="NO_ROUTE"), Quote()),
    ConnectionLost: lost,
    Internal: replying(lambda sent: error_reply(sent, RuntimeError(), source="billing")),
    Unknown: replying(
        lambda sent: error_reply(sent, NotFound(), source="billing").replace(
            body=b'{"code": "out_of_paper", "message": "out of paper", "retryable": false}'
        )
    ),
}


@pytest.mark.parametrize("kind", SCENES, ids=lambda kind: kind.__name__)
def test_the_example_of_an_error_is_what_the_bus_writes(kind: type[BusError]) -> None:
    @virtual
    async def run() -> None:
        loop, transport = asyncio.get_running_loop(), FakeTransport()
        client = Client(
            runtime_of(
                transport, service="shop", settings=SETTINGS, clock=lambda: NOW + loop.time()
            ),
            [],
        )
        await client.start()
        with pytest.raises(kind) as caught:
            await SCENES[kind](client, transport)
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind.__name__}` |"))
        assert UUID_TEXT.sub("a067…", f"`{caught.value}`") in row

    run()


@virtual
async def test_the_example_of_a_payload_that_does_not_match_is_what_the_service_writes() -> None:
    transport = FakeTransport()
    client = Client(runtime_of(transport, service="shop", settings=SETTINGS), [])
    await client.start()
    with pytest.raises(InvalidArgument) as caught:
        await replying(refused_payload)(client, transport)
    assert f"`{caught.value}` |" in PAGE
