import asyncio
from typing import Any

import pytest

from bus.errors import DeadlineExceeded
from bus.messaging.context import Context, handling
from bus.messaging.envelope import Envelope, MessageRole
from bus.middleware.deadline import client_deadline, server_deadline
from tests.unit.fakes import NOW, NoSender, envelope, virtual

MS = int(NOW * 1000)


async def through(envelope: Envelope) -> Envelope:
    return envelope


async def sent(message: Envelope, *, context_deadline: int | None = None) -> Envelope:
    with handling(Context(envelope=envelope(), bus=NoSender(), deadline=context_deadline)):
        result = await client_deadline(clock=lambda: NOW)(through)(message)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("role", "own", "inherited", "expected"),
    [
        ("request", 5_000, None, 5_000),
        ("request", 5_000, 2_000, 2_000),
        ("request", 2_000, 5_000, 2_000),
        ("request", None, 2_000, 2_000),
        ("request", None, None, None),
        ("event", 5_000, 2_000, 5_000),
        ("job", 5_000, 2_000, 5_000),
        ("job", 5_000, -9_000, 5_000),
    ],
)
def test_a_request_alone_is_narrowed_to_the_deadline_of_what_is_handled(
    role: MessageRole, own: int | None, inherited: int | None, expected: int | None
) -> None:
    def moment(milliseconds: int | None) -> int | None:
        return None if milliseconds is None else MS + milliseconds

    @virtual
    async def run() -> None:
        message = await sent(
            envelope(role=role, deadline=moment(own)), context_deadline=moment(inherited)
        )
        assert message.deadline == moment(expected)

    run()


@pytest.mark.parametrize("left", [0, -1, -60_000])
def test_what_is_late_is_not_sent(left: int) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(DeadlineExceeded, match="before the message was sent") as caught:
            await sent(envelope(deadline=MS + left))
        assert not caught.value.maybe_executed

    run()


async def served(
    message: Envelope, *, ahead: float = 0, lasting: float = 0, leeway: float = 30
) -> int | None:
    """Handle `message`, and return the deadline that the handler saw.

    The handler takes `lasting` seconds. The clock is `ahead` seconds ahead.
    """
    context = Context(envelope=message, bus=NoSender())
    loop = asyncio.get_running_loop()
    seen: list[int | None] = []

    async def handler(_: Envelope) -> None:
        seen.append(context.deadline)
        await asyncio.sleep(lasting)

    with handling(context):
        await server_deadline(clock=lambda: NOW + ahead + loop.time(), leeway=leeway)(handler)(
            message
        )
    return seen[0]


def request(**attributes: Any) -> Envelope:
    return envelope(**{"deadline": MS + 2_000, "expiration": 2_000, "received": MS, **attributes})


@virtual
async def test_work_that_is_done_in_time_is_left_alone() -> None:
    assert await served(request(), lasting=1.9) == MS + 2_000


@virtual
async def test_work_ends_at_arrival_and_the_time_that_was_left() -> None:
    with pytest.raises(DeadlineExceeded, match="the handler did not end within 2 s"):
        await served(request(), lasting=2.1)


@virtual
async def test_the_error_of_a_request_names_the_deadline_of_the_caller_as_the_limit() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await served(request(), ahead=1.5, lasting=1)
    assert str(caught.value) == (
        f"{request().type}: the handler did not end within 0.5 s, the time that the caller's "
        "deadline left. Raise the timeout of the caller."
    )


@virtual
async def test_the_error_of_a_job_names_the_timeout_of_its_handler() -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 5 s\. Raise the timeout of the handler"):
        await served(envelope(role="job", deadline=MS + 5_000), lasting=5.1)


@virtual
async def test_the_error_of_a_request_without_a_deadline_asks_for_one() -> None:
    message = request(deadline=None, expiration=None)
    with pytest.raises(DeadlineExceeded, match="within 10 s, the limit of a request without a"):
        await served(message, lasting=10.1)


@virtual
async def test_a_clock_twenty_seconds_ahead_kills_no_live_work() -> None:
    await served(request(received=MS + 20_000), ahead=20, lasting=1.9)


@virtual
async def test_a_clock_twenty_seconds_behind_gives_no_more_time() -> None:
    with pytest.raises(DeadlineExceeded):
        await served(request(received=MS - 20_000), ahead=-20, lasting=2.1)


@virtual
async def test_a_request_is_refused_past_deadline_and_leeway() -> None:
    await served(request(expiration=None, received=MS + 31_900), ahead=31.9, lasting=0.05)
    with pytest.raises(DeadlineExceeded, match="arrived after"):
        await served(request(received=MS + 32_000), ahead=32)


@virtual
async def test_what_waited_here_past_its_time_is_refused() -> None:
    with pytest.raises(DeadlineExceeded, match="arrived after"):
        await served(request(), ahead=2)


@virtual
async def test_a_job_ends_at_the_deadline_that_its_handler_set() -> None:
    job = envelope(role="job", deadline=MS + 5_000)
    assert await served(job, lasting=4.9) == MS + 5_000
    with pytest.raises(DeadlineExceeded):
        await served(job, lasting=5.1)


@virtual
async def test_a_message_without_a_deadline_has_none() -> None:
    assert await served(envelope(), lasting=100_000) is None


@virtual
async def test_the_handlers_own_timeout_error_stays_its_own() -> None:
    async def handler(_: Envelope) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await server_deadline(clock=lambda: NOW)(handler)(request())


async def test_a_request_that_says_no_limit_has_one_all_the_same() -> None:
    layer = server_deadline(clock=lambda: 100.0, longest=10)
    endless = asyncio.Event()

    async def handler(_envelope: Envelope) -> None:
        await endless.wait()

    late = Envelope(id="1", type="a.b.v1", role="request", source="s", received=89_000)

    with pytest.raises(DeadlineExceeded):
        await layer(handler)(late)
