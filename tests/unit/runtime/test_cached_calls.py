"""Tests of kept replies (`cache=` of a contract) on the broker in memory."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from bus import (
    Bus,
    ContractViolation,
    Envelope,
    Handler,
    Message,
    NotFound,
    NotServed,
    Request,
    Router,
    ServiceConfig,
    contract,
)
from bus.middleware.stacks import client_stack
from bus.runtime.service_runtime import ServiceRuntime
from bus.security.jwe import new_encryption_key
from bus.storage.memory.reply_store import MemoryReplyStore
from bus.testing import MemoryBuses, MemoryTransport
from bus.testing.explicit_settings import ExplicitSettings
from tests.unit.runtime.in_memory import in_memory


class Rate(Message):
    number: int


@contract("mint.rate", version=1, idempotent=True, cache=30)
class GetRate(Request[Rate]):
    currency: str = "SEK"


@contract("mint.secret", version=1, idempotent=True, cache=30, encrypted=True)
class GetSecret(Request[Rate]):
    account: str = "Eleonora Quist"


@contract("mint.find", version=1, idempotent=True, cache=30)
class FindRate(Request[Rate | None]):
    currency: str = "SEK"


class Bank:
    """The called service, which counts its requests."""

    def __init__(self) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.error: Exception | None = None
        self.router = Router("mint")
        for kind in (GetRate, GetSecret):
            self.router.request(kind)(self.handler(kind))
        self.router.request(FindRate)(self.find)

    def handler(self, kind: type[Request[Rate]]) -> Callable[..., Any]:
        async def rate(request: Any) -> Rate:
            self.requests += 1
            await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            return Rate(number=self.requests)

        rate.__annotations__["request"] = kind
        return rate

    async def find(self, _: FindRate) -> Rate | None:
        self.requests += 1
        return None


async def served(buses: MemoryBuses, **settings: Any) -> tuple[Bank, Bus]:
    bank = Bank()
    keys = json.dumps({"keys": [new_encryption_key("one")]})
    await buses.serve(await buses.bus("mint", encryption_keys=keys), bank.router)
    return bank, await buses.bus("shop", encryption_keys=keys, **settings)


def lookups(bus: Bus) -> dict[str, float]:
    series = [each for each in bus.report.stats().series if each.name == "cache.lookups"]
    assert {each.labels["operation"] for each in series} <= {"mint.rate"}
    return {each.labels["outcome"]: each.value for each in series}


def store_of(bus: Bus) -> MemoryReplyStore:
    runtime: ServiceRuntime = bus._report._runtime
    assert isinstance(runtime.reply_store, MemoryReplyStore)
    return runtime.reply_store


@in_memory
async def test_the_service_is_asked_once_in_the_seconds_of_its_contract(
    buses: MemoryBuses,
) -> None:
    bank, bus = await served(buses)
    rates = [(await bus.request(GetRate(), timeout=5)).number for _ in range(3)]
    await bus.request(GetRate(currency="EUR"), timeout=5)
    assert (rates, bank.requests) == ([1, 1, 1], 2)
    await asyncio.sleep(31)
    assert (await bus.request(GetRate(), timeout=5)).number == 3
    assert lookups(bus) == {"hit": 2, "miss": 3}
    assert sum(s.value for s in bus.report.stats().series if s.name == "messages.sent") == 5


@in_memory
async def test_concurrent_callers_share_one_request(buses: MemoryBuses) -> None:
    bank, bus = await served(buses)
    bank.seconds = 1
    rates = await asyncio.gather(*(bus.request(GetRate(), timeout=5) for _ in range(100)))
    assert {rate.number for rate in rates} == {1}
    assert len({id(rate) for rate in rates}) == 100
    assert bank.requests == 1
    assert lookups(bus) == {"joined": 99, "miss": 1}


@in_memory
async def test_an_error_reaches_each_caller_and_is_not_kept(buses: MemoryBuses) -> None:
    bank, bus = await served(buses)
    bank.seconds, bank.error = 1, NotFound("no such currency")
    calls = [bus.request(GetRate(), timeout=5) for _ in range(3)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(each) for each in errors] == ["mint.rate.v1: no such currency"] * 3
    assert [type(each) for each in errors] == [NotFound] * 3
    assert len({id(each) for each in errors}) == 3
    bank.error = None
    assert (await bus.request(GetRate(), timeout=5)).number == 2


@in_memory
async def test_a_request_that_waits_for_the_service_shares_no_call_with_one_that_does_not(
    buses: MemoryBuses,
) -> None:
    bus = await buses.bus("shop")
    waiting = [
        asyncio.ensure_future(bus.request(GetRate(), timeout=seconds, wait_for_service=True))
        for seconds in (5, 60, 50)
    ]
    await asyncio.sleep(1)
    with pytest.raises(NotServed):
        await bus.request(GetRate(), timeout=5)
    with pytest.raises(NotServed, match="did not start"):
        await waiting[0]
    bank = Bank()
    keys = json.dumps({"keys": [new_encryption_key("one")]})
    await buses.serve(await buses.bus("mint", encryption_keys=keys), bank.router)
    assert [(await each).number for each in waiting[1:]] == [1, 1]
    assert bank.requests == 1


@in_memory
async def test_a_reply_without_content_is_kept(buses: MemoryBuses) -> None:
    bank, bus = await served(buses)
    assert [await bus.request(FindRate(), timeout=5) for _ in range(2)] == [None, None]
    assert bank.requests == 1


@in_memory
async def test_an_encrypted_reply_is_kept_in_the_memory_of_its_caller(
    buses: MemoryBuses,
) -> None:
    bank, bus = await served(buses)
    rates = [(await bus.request(GetSecret(), timeout=5)).number for _ in range(2)]
    assert (rates, bank.requests) == ([1, 1], 1)
    await asyncio.sleep(31)
    assert len(store_of(bus)) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"services": [ServiceConfig("mint", cache="off")]},
        {"cache_entries": 0},
        {"cache_bytes": 0},
    ],
    ids=["service", "entries", "bytes"],
)
def test_a_setting_turns_the_cache_off(settings: dict[str, Any]) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bank, bus = await served(buses, **settings)
        assert [(await bus.request(GetRate(), timeout=5)).number for _ in range(2)] == [1, 2]
        assert bank.requests == 2

    run()


@in_memory
async def test_a_closed_bus_keeps_no_reply(buses: MemoryBuses) -> None:
    _, bus = await served(buses)
    await bus.request(GetRate(), timeout=5)
    store = store_of(bus)
    assert len(store) == 1
    await bus.__aexit__(None, None, None)
    assert len(store) == 0


@in_memory
async def test_a_reply_that_breaks_its_contract_is_not_kept(buses: MemoryBuses) -> None:
    bank, bus = await served(buses)
    runtime: ServiceRuntime = bus._report._runtime
    transport = runtime.transport
    assert isinstance(transport, MemoryTransport)
    dispatch, broken = bus._client.replies.dispatch, [True]

    def replacing(reply: Envelope) -> None:
        dispatch(reply.replace(body=b'{"other": 1}') if broken[0] else reply)

    bus._client.replies.dispatch = replacing  # type: ignore[method-assign, assignment]
    with pytest.raises(ContractViolation):
        await bus.request(GetRate(), timeout=5)
    broken[0] = False
    assert (await bus.request(GetRate(), timeout=5)).number == 2
    assert bank.requests == 2


def test_the_log_line_of_each_caller_shows_where_its_reply_is_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        bank, bus = await served(buses)
        bank.seconds = 1
        with caplog.at_level(logging.DEBUG, "bus.messages"):
            await asyncio.gather(*(bus.request(GetRate(), timeout=5) for _ in range(2)))
            await bus.request(GetRate(), timeout=5)
        lines = [each for each in caplog.records if "answered" in each.getMessage()]
        assert len({vars(each)["message_id"] for each in lines}) == 3
        assert sorted(str(vars(each).get("cached")) for each in lines) == ["None", "hit", "joined"]
        assert sum("answered from the cache in" in each.getMessage() for each in lines) == 1
        text = "answered by the call of an equal request in"
        assert sum(text in each.getMessage() for each in lines) == 1

    run()


@in_memory
async def test_a_middleware_of_the_application_can_separate_its_users_by_a_header(
    buses: MemoryBuses,
) -> None:
    user = ["ida"]

    def with_user(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            return await inner(envelope.replace(headers={**envelope.headers, "user": user[0]}))

        return call

    bank, _ = await served(buses)
    settings = ExplicitSettings(auth="off")
    transport = MemoryTransport(buses.broker, clock=buses.clock)
    stack = [*client_stack(clock=buses.clock), with_user]
    async with Bus(
        "shop", settings=settings, transport=transport, client=stack, clock=buses.clock
    ) as bus:
        seen = []
        for user[0] in ("ida", "tom", "ida"):
            seen.append((await bus.request(GetRate(), timeout=5)).number)
    assert seen == [1, 2, 1]
    assert bank.requests == 2
