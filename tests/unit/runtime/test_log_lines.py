"""Log lines of a running service: their texts are complete in a program with plain logging."""

import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from bus import Context, Event, Job, Message, NotFound, Request, RetryPolicy, Router, contract
from bus.errors import BusError
from bus.testing import MemoryBuses
from tests.polling import until

SECRET = "Eleonora Quist"
PLACE = r"tests/unit/runtime/test_log_lines\.py:\d+ \w+"


class Sum(Message):
    amount: int


@contract("till.quote", version=1)
class Quote(Request[Sum]):
    customer: str = SECRET


@contract("till.settle", version=1, retry=RetryPolicy(attempts=1))
class Settle(Job[Sum]):
    customer: str = SECRET


@contract("shop.opened", version=1)
class Opened(Event):
    shop: str = "north"


Act = Callable[[], Awaitable[Any]]


async def quoted(act: Act, **settings: Any) -> None:
    """Send a request to a service whose handler calls `act`."""
    router = Router("till")

    @router.request(Quote)
    async def quote(_: Quote) -> Sum:
        return await act()  # type: ignore[no-any-return]  # some results are wrong on purpose

    async with MemoryBuses() as buses:
        till, shop = await buses.bus("till", **settings), await buses.bus("shop")
        await buses.serve(till, router)
        await shop.request(Quote(), timeout=5)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.INFO, "bus")
    yield caplog
    assert SECRET not in caplog.text + str([vars(record) for record in caplog.records])


def of(name: str, log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the level and the text of each line of one logger."""
    return [(each.levelname, each.getMessage()) for each in log.records if each.name == name]


async def test_a_failed_request_says_which_one_and_why_and_where(
    log: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    with pytest.raises(BusError):
        await quoted(fail)
    ((level, text),) = of("bus.messages", log)
    assert level == "ERROR"
    assert re.fullmatch(
        rf"till\.quote\.v1 [0-9a-f]{{8}} failed after [\d.]+ ms: ValueError at {PLACE}", text
    )


async def test_a_refusal_that_the_service_means_is_logged_at_info(
    log: pytest.LogCaptureFixture,
) -> None:
    async def refuse() -> None:
        raise NotFound("the customer has no account")

    with pytest.raises(NotFound):
        await quoted(refuse)
    ((level, text),) = of("bus.messages", log)
    assert level == "INFO"
    assert "ms: NotFound: the customer has no account (tests/unit/runtime/" in text


async def test_a_handler_that_returns_a_wrong_type_is_logged_at_error(
    log: pytest.LogCaptureFixture,
) -> None:
    async def total() -> dict[str, str]:
        return {"amount": SECRET}

    with pytest.raises(BusError):
        await quoted(total)
    ((level, text),) = of("bus.messages", log)
    assert level == "ERROR"
    assert "till.quote.v1" in text
    assert "dict" in text


async def test_a_handler_that_returns_a_coroutine_is_logged_at_error(
    log: pytest.LogCaptureFixture,
) -> None:
    async def total() -> Sum:
        return Sum(amount=1)

    async def forget_to_await() -> Any:
        return total()

    with pytest.raises(BusError):
        await quoted(forget_to_await)
    ((level, text),) = of("bus.messages", log)
    assert level == "ERROR"
    assert "coroutine" in text


async def test_a_wrong_call_in_a_handler_is_logged_at_error(
    log: pytest.LogCaptureFixture,
) -> None:
    def price(customer: str) -> int:
        return len(customer)

    async def call() -> Sum:
        return Sum(amount=price())  # type: ignore[call-arg]  # the programming error

    with pytest.raises(BusError):
        await quoted(call)
    ((level, text),) = of("bus.messages", log)
    assert level == "ERROR"
    assert re.search(rf"TypeError at {PLACE}$", text)


async def test_a_message_that_a_handler_must_not_send_is_logged_at_error(
    log: pytest.LogCaptureFixture,
) -> None:
    router = Router("till")

    @router.request(Quote)
    async def quote(_: Quote, context: Context) -> Sum:
        await context.bus.publish(Opened())  # only the service `shop` may publish it
        return Sum(amount=1)

    async with MemoryBuses() as buses:
        till, shop = await buses.bus("till"), await buses.bus("shop")
        await buses.serve(till, router)
        with pytest.raises(BusError):
            await shop.request(Quote(), timeout=5)
    ((level, text),) = of("bus.messages", log)
    assert level == "ERROR"
    assert "ContractError: shop.opened.v1" in text


async def test_a_dead_letter_says_which_message_it_is_and_why(
    log: pytest.LogCaptureFixture,
) -> None:
    router = Router("till")

    @router.job(Settle)
    async def settle(_: Settle) -> Sum:
        raise ValueError(SECRET)

    async with MemoryBuses() as buses:
        till, shop = await buses.bus("till"), await buses.bus("shop")
        await buses.serve(till, router)
        job = await shop.submit(Settle())
        await until(lambda: of("bus.settlement", log), "the dead letter")
    ((level, text),) = of("bus.settlement", log)
    label = f"till.settle.v1 {job.id[:8]}"
    assert level == "ERROR"
    assert re.fullmatch(
        rf"{label} dead-lettered from till\.jobs\.settle\.v1 after attempt 1: "
        rf"ValueError at {PLACE}",
        text,
    )
    (record,) = (each for each in log.records if each.name == "bus.settlement")
    assert vars(record)["message_id"] == job.id
    assert vars(record)["correlation_id"]


async def test_with_log_messages_each_handled_message_is_one_line_at_info(
    log: pytest.LogCaptureFixture,
) -> None:
    async def total() -> Sum:
        return Sum(amount=1)

    await quoted(total, log_messages="info")
    ((level, text),) = of("bus.messages", log)
    assert level == "INFO"
    assert re.fullmatch(
        r"till\.quote\.v1 [0-9a-f]{8} handled in [\d.]+ ms "
        r"\(from shop, attempt 1, correlation [0-9a-f]{8}\)",
        text,
    )
    (record,) = (each for each in log.records if each.name == "bus.messages")
    assert {"type", "message_id", "correlation_id", "source", "attempt", "ms"} <= set(vars(record))


async def test_without_log_messages_a_handled_message_is_no_line_at_info(
    log: pytest.LogCaptureFixture,
) -> None:
    async def total() -> Sum:
        return Sum(amount=1)

    await quoted(total)
    assert of("bus.messages", log) == []


async def test_a_service_says_by_name_that_it_serves(log: pytest.LogCaptureFixture) -> None:
    async def total() -> Sum:
        return Sum(amount=1)

    await quoted(total)
    assert ("INFO", "till is serving (operations: 1)") in of("bus", log)
