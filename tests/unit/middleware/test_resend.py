import asyncio

import pytest

from bus.errors import (
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    Internal,
    NotServed,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from bus.messaging.envelope import Envelope
from bus.middleware.resend import resend
from tests.unit import ledger  # noqa: F401 - declares the contracts of these types
from tests.unit.fakes import NOW, envelope, virtual

LOST, UNSENT = ConnectionLost("lost", maybe_executed=True), ConnectionLost("not sent")
REFUSED = ResourceExhausted("refused", maybe_executed=True)
IDEMPOTENT, OTHER = envelope("ledger.total.v1"), envelope("ledger.add.v1")
EVENT, JOB = envelope("ledger.closed.v1", role="event"), envelope("ledger.close.v1", role="job")


async def attempts(message: Envelope, *errors: BusError) -> list[Envelope]:
    """Return the messages that were sent while the first attempts failed with `errors`."""
    loop = asyncio.get_running_loop()
    left, seen = list(errors), []

    async def inner(sent: Envelope) -> None:
        seen.append(sent)
        if left:
            raise left.pop(0)

    await resend(clock=lambda: NOW + loop.time())(inner)(message)
    return seen


@pytest.mark.parametrize(
    ("message", "error"),
    [(IDEMPOTENT, LOST), (EVENT, LOST), (JOB, LOST), (OTHER, UNSENT)],
    ids=["idempotent", "event", "job", "not sent"],
)
def test_what_is_safe_is_tried_again_with_the_same_id(message: Envelope, error: BusError) -> None:
    @virtual
    async def run() -> None:
        assert await attempts(message, *[error] * 3) == [message] * 4

    run()


@pytest.mark.parametrize("message", [EVENT, JOB], ids=["event", "job"])
def test_what_the_broker_refuses_is_tried_again_until_the_deadline(message: Envelope) -> None:
    @virtual
    async def run() -> None:
        assert await attempts(message, *[REFUSED] * 3) == [message] * 4
        with pytest.raises(ResourceExhausted):
            await attempts(
                message.replace(
                    deadline=int((NOW + asyncio.get_running_loop().time()) * 1000) + 3_000
                ),
                *[REFUSED] * 1000,
            )

    run()


def test_a_service_that_has_no_room_is_not_asked_again() -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(ResourceExhausted):
            await attempts(IDEMPOTENT, ResourceExhausted("x"))

    run()


@pytest.mark.parametrize("message", [IDEMPOTENT, EVENT, JOB], ids=["request", "event", "job"])
@pytest.mark.parametrize("last", [Unavailable, NotServed, DeadlineExceeded, PermissionDenied])
def test_what_may_have_arrived_once_is_never_said_to_be_surely_unsent(
    message: Envelope, last: type[BusError]
) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(BusError) as raised:
            await attempts(message, LOST, UNSENT, last("not sent"))
        assert raised.value.maybe_executed
        assert isinstance(raised.value, last)
        assert "not sent" in str(raised.value)
        assert not UNSENT.maybe_executed
        assert type(raised.value) is not Unavailable, "which means that it was surely not sent"

    run()


def test_what_surely_never_left_is_said_to_be_unsent() -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(Unavailable) as raised:
            await attempts(EVENT, UNSENT, UNSENT, Unavailable("not sent"))
        assert not raised.value.maybe_executed

    run()


@pytest.mark.parametrize(
    "error", [Unavailable("x"), NotServed("x"), DeadlineExceeded("x"), Internal("x")]
)
@pytest.mark.parametrize("message", [IDEMPOTENT, EVENT], ids=["request", "event"])
def test_an_answer_is_never_tried_again(message: Envelope, error: BusError) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(type(error)):
            await attempts(message, error)

    run()


@pytest.mark.parametrize("type_", ["ledger.add.v1", "unknown.thing.v1"])
def test_what_may_have_happened_and_is_not_idempotent_is_not_tried_again(type_: str) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(ConnectionLost):
            await attempts(envelope(type_), LOST)

    run()


@virtual
async def test_retries_end_before_the_deadline() -> None:
    message = IDEMPOTENT.replace(deadline=int(NOW * 1000) + 3_000)
    with pytest.raises(ConnectionLost):
        await attempts(message, *[LOST] * 1000)
    assert asyncio.get_running_loop().time() < 3
