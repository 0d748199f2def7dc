"""How many requests of a bus wait for a reply of one service at the same time."""

import asyncio

import pytest

from bus import ServiceConfig, ServiceDefaults
from bus.contracts.contract import Event, Job, Message, Request, contract
from bus.errors import ConfigurationError, DeadlineExceeded, ResourceExhausted, executed_of
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.unit.fakes import settle_down
from tests.unit.runtime.in_memory import in_memory


class Answer(Message):
    number: int


@contract("packed.ask", version=1)
class Ask(Request[Answer]):
    number: int


@contract("packed.count", version=1)
class Count(Request[Answer]):
    number: int


@contract("packed.work", version=1)
class Work(Job[Answer]): ...


@contract("caller.changed", version=1)
class Changed(Event): ...


class Packed:
    """The service `packed`, which answers when the test says so."""

    def __init__(self) -> None:
        self.router = Router("packed")
        self.begun: list[int] = []
        self.ends = asyncio.Event()

        @self.router.request(Ask, concurrency=50)
        async def ask(request: Ask) -> Answer:
            return await self.answer(request.number)

        @self.router.request(Count, concurrency=50)
        async def count(request: Count) -> Answer:
            return await self.answer(request.number)

        @self.router.job(Work)
        async def work(job: Work) -> Answer:
            return Answer(number=0)

    async def answer(self, number: int) -> Answer:
        self.begun.append(number)
        await self.ends.wait()
        return Answer(number=number)


async def packed_with(buses: MemoryBuses, config: ServiceConfig) -> tuple[Packed, Bus]:
    """Return the running service, and a bus of a caller with this configuration."""
    packed = Packed()
    await buses.serve(await buses.bus("packed"), packed.router)
    return packed, await buses.bus("caller", services=[config])


@in_memory
async def test_a_bus_sends_so_many_requests_at_a_time_and_the_others_in_their_order(
    buses: MemoryBuses,
) -> None:
    packed, bus = await packed_with(buses, ServiceConfig("packed", max_in_flight=3))
    calls = [asyncio.ensure_future(bus.request(Ask(number=number))) for number in range(8)]
    await settle_down()
    assert packed.begun == [0, 1, 2]
    packed.ends.set()
    assert [answer.number for answer in await asyncio.gather(*calls)] == [*range(8)]
    assert packed.begun == [*range(8)]


@in_memory
async def test_a_request_beyond_the_waiting_ones_fails_at_once_and_never_reaches_the_service(
    buses: MemoryBuses,
) -> None:
    config = ServiceConfig("packed", max_in_flight=1, max_waiting=1)
    packed, bus = await packed_with(buses, config)
    calls = [asyncio.ensure_future(bus.request(Ask(number=number))) for number in range(2)]
    await settle_down()
    with pytest.raises(ResourceExhausted) as caught:
        await bus.request(Count(number=9))
    assert executed_of(caught.value) == "no"
    packed.ends.set()
    await asyncio.gather(*calls)
    assert packed.begun == [0, 1]


@in_memory
async def test_a_request_that_waits_until_its_deadline_never_reaches_the_service(
    buses: MemoryBuses,
) -> None:
    packed, bus = await packed_with(buses, ServiceConfig("packed", max_in_flight=1))
    first = asyncio.ensure_future(bus.request(Ask(number=0), timeout=5))
    await settle_down()
    with pytest.raises(DeadlineExceeded, match="was not sent before its deadline") as caught:
        await bus.request(Ask(number=1), timeout=1)
    assert executed_of(caught.value) == "no"
    packed.ends.set()
    await first
    assert packed.begun == [0]


@in_memory
async def test_events_and_jobs_need_no_permit(buses: MemoryBuses) -> None:
    packed, bus = await packed_with(buses, ServiceConfig("packed", max_in_flight=1, max_waiting=0))
    first = asyncio.ensure_future(bus.request(Ask(number=0)))
    await settle_down()
    await bus.publish(Changed())
    assert await (await bus.submit(Work())).result(timeout=5) == Answer(number=0)
    packed.ends.set()
    await first


@in_memory
async def test_a_service_without_a_configuration_has_the_default_limit(
    buses: MemoryBuses,
) -> None:
    packed = Packed()
    await buses.serve(await buses.bus("packed"), packed.router)
    bus = await buses.bus(
        "caller", service_defaults=ServiceDefaults(max_in_flight=1, max_waiting=0)
    )
    first = asyncio.ensure_future(bus.request(Ask(number=0)))
    await settle_down()
    with pytest.raises(ResourceExhausted, match="the service packed waits"):
        await bus.request(Ask(number=1))
    packed.ends.set()
    await first


def test_contradicting_policies_fail_when_the_bus_is_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("BUS_SERVICES__PACKED__TIMEOUT", "1")
    monkeypatch.setenv("BUS_SERVICES__PACKED__ATTEMPT_TIMEOUT", "1")
    with pytest.raises(ConfigurationError, match="BUS_SERVICES__PACKED__ATTEMPT_TIMEOUT: must be"):
        Bus("caller")
