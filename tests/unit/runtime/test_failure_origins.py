"""Failures that the traceback does not show: a wrong result, an invalid message, another service.

pytest treats the warning of a coroutine that was never awaited as an error.
"""

import asyncio
import functools
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import field_serializer, field_validator

from bus import Context, Event, Internal, Job, Message, Request, RetryPolicy, Router, contract
from bus.errors import BusError, ContractViolation, InvalidArgument, InvalidResult
from bus.messaging.context import handling
from bus.messaging.failure_location import failure_facts, failure_location
from bus.messaging.failure_origin import blame_handler
from bus.messaging.fault_record import FailedBy, fault_headers
from bus.messaging.handler import Handler
from bus.messaging.settlement import MoveToDeadLetters
from bus.testing import MemoryBuses
from bus.testing.handling import HandlerCall
from tests.unit.fakes import NoSender, envelope

SECRET = "Eleonora Quist"
FILE = "tests/unit/runtime/test_failure_origins.py"


class Sum(Message):
    amount: int


class Odd(Message):
    amount: int

    @field_serializer("amount")
    def odd_amount(self, value: int) -> int:
        if value > 100:
            raise RuntimeError(SECRET)
        return value


@contract("kiosk.quote", version=1)
class Quote(Request[Sum]):
    customer: str = SECRET


@contract("kiosk.odd", version=1)
class AskOdd(Request[Odd]):
    customer: str = SECRET


@contract("kiosk.close", version=1)
class Close(Job[Sum]):
    customer: str = SECRET


@contract("kiosk.paid", version=1)
class Paid(Event):
    customer: str = SECRET


@contract("kiosk.refund", version=1)
class Refund(Request[Sum]):
    amount: int

    @field_validator("amount")
    @classmethod
    def at_most(cls, value: int) -> int:
        return value if value < 100 else 1 // (value - value)


@contract("kiosk.check", version=1)
class Check(Request[Sum]):
    amount: int

    @field_validator("amount")
    @classmethod
    def refuse(cls, value: int) -> int:
        raise ContractViolation("the amount is refused")


async def work(_: object = None) -> None: ...


async def forget(paid: Paid) -> None:
    return work(paid)  # type: ignore[return-value]  # the programming error: no await


def logs(name: str, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == name]


def line_of(function: Callable[..., Any]) -> str:
    code = function.__code__
    return f"{FILE}:{code.co_firstlineno} {code.co_qualname.rpartition('<locals>.')[2]}"


# --- Results that are wrong ---


async def served(
    router: Router, act: Callable[[Any], Any], *, retries: bool = False
) -> tuple[MemoryBuses, BaseException | None]:
    """Serve a router, let a bus of another service act, and return the buses and the error."""
    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("kiosk"), router)
        sender = await buses.bus("kiosk" if act is publish else "shop")
        error = None
        try:
            await act(sender)
        except BusError as raised:
            error = raised
        await buses.settled(retries=retries)
        return buses, error


async def publish(bus: Any) -> None:
    await bus.publish(Paid())


async def submit(bus: Any) -> None:
    await (await bus.submit(Close())).result()


async def quote(bus: Any) -> None:
    await bus.request(Quote())


async def number(_: Paid) -> None:
    return 5  # type: ignore[return-value]  # the programming error


async def future(_: Paid) -> None:
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done  # type: ignore[return-value]  # the programming error


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (forget, "the handler returned the coroutine work that it did not await"),
        (future, "the handler returned an awaitable of type Future that it did not await"),
        (number, "the handler returned int, not None. Return None."),
    ],
)
async def test_an_event_whose_handler_returns_a_value_is_dead_lettered_at_once(
    handler: Callable[..., Any], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router("kiosk")
    router.event(Paid)(handler)
    buses, _ = await served(router, publish)
    record = buses.dead(Paid).one().record
    assert record.attempts == 1
    assert problem in str(record.reason)
    assert record.where == line_of(handler)
    ((line),) = logs("bus.messages", caplog)
    assert line.levelname == "ERROR"
    assert problem in line.getMessage()
    assert line.getMessage().count("kiosk.paid.v1") == 1
    assert SECRET not in caplog.text


async def test_a_job_whose_handler_forgets_to_await_is_dead_lettered_at_once() -> None:
    router = Router("kiosk")

    @router.job(Close)
    async def close(_: Close) -> Sum:
        return work()  # type: ignore[return-value]  # the programming error

    buses, error = await served(router, submit)
    record = buses.dead(Close).one().record
    assert (record.attempts, record.where) == (1, line_of(close))
    assert "returned the coroutine work that it did not await" in str(error)


async def test_a_handler_below_a_plain_wrapper_that_forgets_to_await_is_named() -> None:
    router = Router("kiosk")

    async def forgetful(_: Quote) -> Sum:
        return work()  # type: ignore[return-value]  # the programming error

    @functools.wraps(forgetful)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return forgetful(*args, **kwargs)

    router.request(Quote)(wrapper)
    _, error = await served(router, quote)
    assert isinstance(error, Internal)
    assert "returned the coroutine work that it did not await" in str(error)


async def test_a_plain_wrapper_without_a_coroutine_is_dead_lettered_at_once() -> None:
    router = Router("kiosk")

    @functools.wraps(number)
    def wrapper(*_: Any, **__: Any) -> Any:
        return None

    router.event(Paid)(wrapper)
    buses, _ = await served(router, publish)
    record = buses.dead(Paid).one().record
    assert (record.attempts, record.where) == (1, line_of(number))
    assert "returned NoneType, not a coroutine" in str(record.reason)


async def test_handle_refuses_an_event_handler_that_forgets_to_await(handle: HandlerCall) -> None:
    with pytest.raises(InvalidResult, match="returned the coroutine work"):
        await handle(forget, Paid())


# --- Locations ---


def pass_on(inner: Handler) -> Handler:
    """Return a layer of the service, whose frame is not the location of these failures."""

    async def call(envelope: Any) -> Any:
        return await inner(envelope)

    return call


async def failed(router: Router, message: Any, handle: HandlerCall) -> BaseException:
    with pytest.raises(BusError) as raised:
        await handle(next(iter(router.endpoints.values())).function, message)
    return raised.value


async def test_a_result_of_a_wrong_type_is_located_at_the_handler(handle: HandlerCall) -> None:
    async def wrong(_: Quote) -> Sum:
        return {"amount": SECRET}  # type: ignore[return-value]  # the programming error

    router = Router("kiosk")
    router.request(Quote)(wrong)
    error = await failed(router, Quote(), handle)
    facts = failure_facts(error)
    assert facts["where"] == line_of(wrong)
    assert facts["frames"][-1] == line_of(wrong)  # type: ignore[index]
    assert SECRET not in str(facts)


async def test_a_handler_that_is_an_object_or_a_partial_is_located_in_its_code() -> None:
    class Teller:
        async def __call__(self, _: Quote) -> Sum:
            return Sum(amount=1)

    for function in (functools.partial(Teller.__call__, Teller()), Teller()):
        error = InvalidResult("wrong")
        blame_handler(error, function)
        assert failure_location(error) == line_of(Teller.__call__)
        assert failure_location(pickle.loads(pickle.dumps(error))) == failure_location(error)


async def test_a_result_that_a_serializer_of_the_service_breaks_is_located_at_the_serializer(
    handle: HandlerCall,
) -> None:
    async def odd(_: AskOdd) -> Odd:
        return Odd(amount=101)

    router = Router("kiosk")
    router.request(AskOdd)(odd)
    error = await failed(router, AskOdd(), handle)
    assert (failure_location(error) or "").startswith(FILE)
    frames = failure_facts(error)["frames"]
    assert line_of(odd) in frames  # type: ignore[operator]


async def test_a_message_that_breaks_its_contract_has_no_location() -> None:
    router = Router("kiosk")

    @router.request(Quote)
    async def never(_: Quote) -> Sum:
        raise AssertionError

    queue = "kiosk.requests.quote.v1"
    broken = envelope(type_="kiosk.quote.v1", queue=queue, body=b'{"customer": 5}')
    with (
        handling(Context(envelope=broken, bus=NoSender())),
        pytest.raises(ContractViolation, match="must be a string") as raised,
    ):
        await pass_on(router)(broken)
    facts = failure_facts(raised.value)
    assert (facts["where"], facts["frames"]) == (None, [])
    assert "dead-where" not in fault_headers(
        broken,
        MoveToDeadLetters(code="invalid_argument", reason="ContractViolation"),
        raised.value,
        queue=queue,
        now=1,
        worker=FailedBy(service="kiosk"),
    )


@pytest.mark.parametrize("auth", ["dev", "off"])
async def test_a_message_that_the_bus_refuses_has_no_location(
    auth: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bus")
    router = Router("kiosk")

    @router.job(Close, retry=RetryPolicy(attempts=1))
    async def never(_: Close) -> Sum:
        raise AssertionError

    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("kiosk", auth="dev", key="1" * 32), router)
        sender = await buses.bus("shop", auth=auth, key="2" * 32)
        await sender.submit(Close())
        await buses.settled(retries=True)
        letter = buses.dead(Close).one()
    (line,) = logs("bus.settlement", caplog)
    facts = vars(line)
    assert (facts["error"], facts["where"], facts["frames"]) == ("Unauthenticated", None, [])
    assert "bus/" not in line.getMessage()
    assert (letter.record.where, letter.record.frames) == (None, ())


async def test_a_validator_that_fails_is_the_location_of_the_violation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bus")
    router = Router("kiosk")

    @router.request(Refund)
    async def refund(_: Refund) -> Sum:
        raise AssertionError

    @router.request(Check)
    async def check(_: Check) -> Sum:
        raise AssertionError

    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("kiosk"), router)
        shop = await buses.bus("shop")
        for message in (Refund.model_construct(amount=100), Check.model_construct(amount=100)):
            with pytest.raises(InvalidArgument):
                await shop.request(message)
    first, second = logs("bus.messages", caplog)
    assert str(vars(first)["where"]).endswith(" Refund.at_most")
    assert str(vars(second)["where"]).endswith(" Check.refuse")


async def test_in_memory_a_failed_request_of_a_handler_is_located_in_the_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bank, till = Router("bank"), Router("kiosk")

    @contract("bank.pay", version=1)
    class Pay(Request[Sum]):
        customer: str = SECRET

    @bank.request(Pay)
    async def pay(_: Pay) -> Sum:
        raise KeyError(SECRET)

    @till.request(Quote)
    async def ask(_: Quote, context: Context) -> Sum:
        return await context.bus.request(Pay())

    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("bank"), bank)
        await buses.serve(await buses.bus("kiosk"), till)
        with pytest.raises(Internal):
            await (await buses.bus("shop")).request(Quote())
    callee, caller = logs("bus.messages", caplog)
    assert str(vars(callee)["where"]).endswith(" pay")
    assert str(vars(caller)["where"]).endswith(" ask")
    assert not [frame for frame in vars(caller)["frames"] if " pay" in frame]
