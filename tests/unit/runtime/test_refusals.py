"""What the reply to a refused or failed message tells about its handler."""

import json
from typing import Any

import pytest

from bus.errors import BusError, Unavailable
from bus.messaging.context import Context
from bus.messaging.handler import compose
from bus.middleware.stacks import server_stack
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, envelope, receiver_of, virtual
from tests.unit.ledger import Add, CloseBooks, GetTotal, Total
from tests.unit.runtime.in_memory import in_memory


def failing(model: Any, error: BaseException) -> Router:
    router = Router("ledger")

    async def work(_message: Any) -> Total:
        raise error

    register: Any = router.job if model is CloseBooks else router.request
    register(model)(work)
    return router


async def executed(model: Any, delivery: FakeDelivery, error: BaseException) -> str | None:
    """Return the member `executed` of the reply to one delivery."""
    transport = FakeTransport()
    router = failing(model, error)
    handler = compose(server_stack(clock=lambda: NOW), router)
    receiver = receiver_of(router, transport, handler=handler)
    receiver.on_delivery(delivery)
    await receiver.drain()
    (sent,) = transport.sent
    value: str | None = json.loads(sent.envelope.body).get("executed")
    return value


def request(type_: str = "ledger.total.v1", **attributes: Any) -> FakeDelivery:
    redelivered = attributes.pop("redelivered", False)
    queue = f"ledger.requests.{type_.removeprefix('ledger.')}"
    sent = envelope(type_, reply_to="office.replies.1", queue=queue, **attributes)
    return FakeDelivery(sent, redelivered=redelivered)


NOTHING_DONE = Unavailable("busy", executed="no")


@pytest.mark.parametrize(
    ("model", "delivery", "error", "value"),
    [
        (GetTotal, request(fault="header id is malformed"), KeyError(), "no"),
        (GetTotal, request(body=b"7"), KeyError(), "no"),
        (GetTotal, request(deadline=int(NOW * 1000) - 60_000), KeyError(), "no"),
        (GetTotal, request(), KeyError(), None),
        (GetTotal, request(), Unavailable("busy"), None),
        (GetTotal, request(), NOTHING_DONE, "no"),
        (GetTotal, request(redelivered=True), NOTHING_DONE, None),
        (GetTotal, request(redelivered=True, fault="header id is malformed"), KeyError(), None),
        (Add, request("ledger.add.v1", redelivered=True), KeyError(), None),
        (Add, request("ledger.add.v1"), NOTHING_DONE, "no"),
    ],
    ids=[
        *("malformed", "invalid payload", "late", "failed", "unavailable", "nothing done"),
        *("nothing done again", "refused again", "at most once", "nothing done once"),
    ],
)
def test_a_reply_tells_if_certainly_no_handler_has_begun_the_request(
    model: Any, delivery: FakeDelivery, error: BaseException, value: str | None
) -> None:
    @virtual
    async def run() -> None:
        assert await executed(model, delivery, error) == value

    run()


@in_memory
async def test_the_failure_of_a_job_tells_if_its_only_attempt_has_done_nothing(
    buses: MemoryBuses,
) -> None:
    router = Router("ledger")

    @router.job(CloseBooks)
    async def close(job: CloseBooks, context: Context) -> Total:
        if context.envelope.attempt < job.year:
            raise Unavailable("later")
        raise BusError("no", executed="no")

    await buses.serve(await buses.bus("ledger"), router)
    office = await buses.bus("office")
    for attempts, value in ((1, "no"), (2, "maybe")):
        handle = await office.submit(CloseBooks(year=attempts))
        with pytest.raises(BusError) as raised:
            await handle.result()
        assert raised.value.executed == value
