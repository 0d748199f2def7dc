import asyncio
import gc
from collections.abc import Awaitable
from typing import Any, cast

import pytest

from bus.contracts.contract import Message, Request, contract, contract_of
from bus.errors import BusError, ConnectionLost, DeadlineExceeded, NotFound, PermissionDenied
from bus.messaging.envelope import Envelope
from bus.messaging.instruments import CACHE_LOOKUPS
from bus.messaging.ports.meter import Instrument, Labels, Meter, Reporter
from bus.messaging.resends import on_resend, tell_resend
from bus.messaging.resilience.call_policy import DEFAULT_POLICY
from bus.messaging.resilience.destinations import Destinations
from bus.middleware.cache import CacheAccess, cache
from bus.storage.memory.reply_store import MemoryReplyStore
from tests.unit.fakes import NOW, envelope, settle_down, virtual


class Price(Message):
    price: int


@contract("parlour.price", version=1, idempotent=True, cache=30)
class GetPrice(Request[Price]):
    book: str


CONTRACT = contract_of(GetPrice)
LIMIT = int(NOW * 1000)


def question(id_: str = "m-1", *, body: bytes = b"{}", **attributes: Any) -> Envelope:
    return envelope("parlour.price.v1", id=id_, body=body, **attributes)


def within(seconds: float) -> int:
    """Return a deadline, in seconds after the start of the test."""
    return LIMIT + int(seconds * 1000)


class Lookups:
    """A meter with the outcomes of all lookups."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def count(self, instrument: Instrument, labels: Labels) -> None:
        assert instrument is CACHE_LOOKUPS
        assert labels[:2] == ("parlour.price", "1")
        self.outcomes.append(labels[2])

    def report_before_read(self, reporter: Reporter) -> None:
        pass


class Shop:
    """The called service of a test, and the cache in front of it."""

    def __init__(self, *, seconds: float = 1.0, max_entries: int = 10) -> None:
        self.seconds = seconds
        self.sent: list[Envelope] = []
        self.error: BaseException | None = None
        self.cancelled = 0
        self.is_valid = True
        self.denied: BusError | None = None
        self.rights = frozenset({"parlour.price"})
        self.meter = Lookups()
        self.store = MemoryReplyStore(max_entries=max_entries)
        self.compose()

    def compose(self) -> None:
        access = CacheAccess(
            store=self.store,
            refusal=lambda _: self.denied,
            rights=lambda: self.rights,
            is_valid=lambda *_: self.is_valid,
        )
        meter = cast("Meter", self.meter)
        owner = Destinations({}, DEFAULT_POLICY, timer=now, clock=clock, meter=meter)
        self._call = cache(owner.of(CONTRACT.type), access)(self.inner)

    def call(self, request: Envelope) -> Awaitable[Envelope | None]:
        return self._call(request)

    def begin(self, request: Envelope) -> "asyncio.Task[Envelope | None]":
        return asyncio.ensure_future(self.call(request))

    async def inner(self, request: Envelope) -> Envelope:
        self.sent.append(request)
        number, left = len(self.sent), self.seconds
        if request.deadline is not None:
            left = min(left, request.deadline / 1000 - clock())
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if left < self.seconds:
            raise DeadlineExceeded("no reply", maybe_executed=True)
        if self.error is not None:
            raise self.error
        return envelope(
            "parlour.price.v1.reply",
            id=f"r-{number}",
            role="reply",
            body=b"%d" % number,
            in_reply_to=request.id,
            correlation_id=request.correlation_id,
            authorization="Bearer secret",
        )


def clock() -> float:
    return NOW + asyncio.get_running_loop().time()


def now() -> float:
    return asyncio.get_running_loop().time()


async def body(call: Awaitable[Envelope | None]) -> bytes:
    reply = await call
    assert reply is not None
    return reply.body


@virtual
async def test_equal_requests_share_one_reply_for_the_seconds_of_the_contract() -> None:
    shop = Shop()
    assert await body(shop.call(question())) == b"1"
    await asyncio.sleep(29)
    began = now()
    assert await body(shop.call(question("m-2"))) == b"1"
    assert now() == began
    await asyncio.sleep(2)
    assert await body(shop.call(question("m-3"))) == b"2"
    assert shop.meter.outcomes == ["miss", "hit", "miss"]


@virtual
async def test_a_kept_reply_has_the_ids_of_its_caller_and_no_token() -> None:
    shop = Shop()
    first = await shop.call(question(correlation_id="c-1"))
    assert first is not None
    assert first.cached is None
    hit = await shop.call(question("m-2", correlation_id="c-2", traceparent="trace"))
    assert hit is not None
    assert (hit.in_reply_to, hit.causation_id, hit.correlation_id) == ("m-2", "m-2", "c-2")
    assert (hit.traceparent, hit.authorization, hit.cached) == ("trace", None, "hit")


@pytest.mark.parametrize(
    "other",
    [
        question("m-2", body=b"[]"),
        question("m-2", headers={"user": "ida"}),
        question("m-2", source="library"),
    ],
    ids=["payload", "header", "service"],
)
def test_a_request_that_differs_has_a_reply_of_its_own(other: Envelope) -> None:
    @virtual
    async def run() -> None:
        shop = Shop()
        assert await body(shop.call(question())) == b"1"
        assert await body(shop.call(other)) == b"2"
        assert await body(shop.call(question("m-3"))) == b"1"

    run()


@virtual
async def test_a_caller_with_other_rights_gets_no_kept_reply() -> None:
    shop = Shop()
    await shop.call(question())
    shop.rights = frozenset({"parlour.price", "parlour.discount"})
    assert await body(shop.call(question("m-2"))) == b"2"


@virtual
async def test_requests_of_another_criticality_share_replies_and_not_calls() -> None:
    shop, lower = Shop(), {"criticality": "sheddable"}
    calls = shop.begin(question()), shop.begin(question("m-2", headers=lower))
    assert [await body(call) for call in calls] == [b"1", b"2"]
    assert await body(shop.call(question("m-3", headers=lower))) == b"2"
    assert await body(shop.call(question("m-4"))) == b"2"


@virtual
async def test_a_revoked_right_gets_neither_a_kept_reply_nor_a_shared_call() -> None:
    shop = Shop()
    await shop.call(question())
    running = shop.begin(question("m-2", body=b"[]"))
    await asyncio.sleep(0.5)
    shop.denied = PermissionDenied("revoked")
    for request in (question("m-3"), question("m-4", body=b"[]")):
        with pytest.raises(PermissionDenied):
            await shop.call(request)
    assert await body(running) == b"2"


@virtual
async def test_concurrent_equal_requests_share_one_call() -> None:
    shop = Shop()
    calls = [shop.begin(question(f"m-{number}")) for number in range(50)]
    replies = await asyncio.gather(*calls)
    assert len(shop.sent) == 1
    assert now() == pytest.approx(1)
    assert [reply and reply.in_reply_to for reply in replies] == [f"m-{n}" for n in range(50)]
    assert [reply and reply.cached for reply in replies] == [None] + ["joined"] * 49
    assert shop.meter.outcomes == ["miss"] + ["joined"] * 49


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_a_cancelled_caller_does_not_disturb_the_others(cancelled: int) -> None:
    @virtual
    async def run() -> None:
        shop = Shop()
        calls = [shop.begin(question(f"m-{number}")) for number in range(3)]
        await asyncio.sleep(0.5)
        calls[cancelled].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(each, Envelope) for each in results].count(True) == 2
        assert len(shop.sent) == 1
        assert shop.cancelled == 0

    run()


@virtual
async def test_a_caller_that_is_gone_hears_of_no_further_attempt_of_its_shared_call() -> None:
    heard: list[BusError] = []

    async def retrying(request: Envelope) -> Envelope:
        for _ in range(2):
            await asyncio.sleep(1)
            tell_resend(NotFound("again"))
        return request

    shop = Shop()
    shop.inner = retrying  # type: ignore[method-assign]
    shop.compose()
    token = on_resend.set(heard.append)
    first = shop.begin(question("m-1"))
    on_resend.reset(token)
    await asyncio.sleep(0.5)
    other = shop.begin(question("m-2"))
    await asyncio.sleep(1)
    first.cancel()
    await other
    assert len(heard) == 1


@virtual
async def test_a_call_ends_if_each_of_its_callers_was_cancelled() -> None:
    shop = Shop(seconds=60)
    calls = [shop.begin(question(f"m-{number}")) for number in range(3)]
    await asyncio.sleep(0.5)
    for call in calls:
        call.cancel()
    next_call = None
    await asyncio.sleep(0)
    next_call = shop.begin(question("m-4"))
    await settle_down()
    assert shop.cancelled == 1
    assert await body(next_call) == b"2"


@virtual
async def test_each_caller_keeps_its_own_deadline() -> None:
    shop = Shop(seconds=5)
    first = shop.begin(question("m-1", deadline=within(10)))
    await asyncio.sleep(1)
    with pytest.raises(DeadlineExceeded, match=r"price\.v1: no reply within 1 s") as caught:
        await shop.call(question("m-2", deadline=within(2)))
    assert caught.value.maybe_executed
    assert caught.value.origin == "service"
    assert now() == pytest.approx(2)
    assert await body(first) == b"1"


@virtual
async def test_callers_with_more_time_share_a_second_call_after_the_deadline_of_the_first() -> None:
    shop = Shop(seconds=3)
    first = shop.begin(question("m-1", deadline=within(2)))
    await asyncio.sleep(1)
    others = [shop.begin(question(f"m-{n}", deadline=within(n))) for n in (4, 9, 8, 7)]
    with pytest.raises(DeadlineExceeded):
        await first
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [type(each) for each in results] == [DeadlineExceeded, *[Envelope] * 3]
    assert len(shop.sent) == 2
    assert shop.sent[1].deadline == within(9)
    assert now() == pytest.approx(5)


@virtual
async def test_a_caller_with_more_time_outlives_each_shorter_call_of_others() -> None:
    shop = Shop(seconds=3)
    first = shop.begin(question("m-1", deadline=within(2)))
    await asyncio.sleep(1)
    patient = shop.begin(question("m-2", deadline=within(30)))
    first.cancel()
    await asyncio.sleep(1)
    short = shop.begin(question("m-3", deadline=within(2.5)))
    assert await body(patient) == b"3"  # it has joined the short call before
    with pytest.raises(DeadlineExceeded):
        await short


@virtual
async def test_an_error_is_not_kept_and_reaches_each_caller_as_an_object_of_its_own() -> None:
    shop = Shop()
    shop.error = NotFound("no such book")
    calls = [shop.begin(question(f"m-{number}")) for number in range(3)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [NotFound] * 3
    assert [str(error) for error in errors] == ["no such book"] * 3
    assert len({id(error) for error in errors}) == 3
    shop.error = None
    assert await body(shop.call(question())) == b"2"


@virtual
async def test_an_error_that_cannot_be_copied_reaches_each_caller() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    shop = Shop()
    shop.error = Odd(1, 2)
    calls = [shop.begin(question(f"m-{number}")) for number in range(3)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(error) for error in errors] == ["1 and 2"] * 3


@virtual
async def test_the_attributes_of_an_error_reach_each_caller() -> None:
    shop = Shop()
    shop.error = ConnectionLost("lost", maybe_executed=True, retry_after=3)
    shop.error.origin = "broker"
    calls = [shop.begin(question(f"m-{number}")) for number in range(2)]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, ConnectionLost)
        assert (error.maybe_executed, error.retry_after, error.origin) == (True, 3, "broker")


@virtual
async def test_a_reply_that_does_not_match_its_contract_is_not_kept() -> None:
    shop = Shop()
    shop.is_valid = False
    assert await body(shop.call(question())) == b"1"
    assert await body(shop.call(question())) == b"2"


@virtual
async def test_a_store_without_room_still_lets_concurrent_requests_share_one_call() -> None:
    shop = Shop(max_entries=0)
    await asyncio.gather(*[shop.begin(question(f"m-{number}")) for number in range(3)])
    assert len(shop.sent) == 1
    assert await body(shop.call(question())) == b"2"


@virtual
async def test_shared_calls_leave_no_task_and_no_object() -> None:
    shop = Shop()

    async def some(number: int) -> None:
        shop.error = NotFound("x") if number % 2 else None
        same = b"%d" % number
        calls = [shop.begin(question(f"m-{n}", body=same)) for n in range(3)]
        await asyncio.sleep(0.5)
        calls[number % 3].cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    await some(0)
    await some(1)
    shop.sent.clear()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for number in range(200):
            await some(number)
        await asyncio.sleep(60)
        shop.sent.clear()
        shop.meter.outcomes.clear()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(gc.get_objects()) - before < 100
    finally:
        gc.enable()
