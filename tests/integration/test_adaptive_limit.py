"""The prefetch of a consumer changes on a real RabbitMQ while messages are unacked."""

import asyncio
from collections import Counter

import pytest
from pydantic import SecretStr

from bus import AdaptiveLimit, Bus, Job, Request, Router, Settings, contract
from bus.messaging.context import Context
from bus.messaging.resilience.adaptive_limit import GradientLimit
from bus.operations.brokers.broker import Broker
from bus.operations.queue_inspection import BrokerAddress, QueueFilter, inspect_queues
from tests.broker import management_url
from tests.polling import until


@contract("sawmill.grind", version=1)
class Grind(Job[None]):
    number: int


@contract("sawmill.weigh", version=1, idempotent=True)
class Weigh(Request[None]):
    number: int


class Mill:
    """Handlers that wait until the test opens `go`, and count the runs of each message."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()
        self.redelivered = 0
        self.running = 0
        self.go = asyncio.Event()
        self.router = Router("sawmill")
        limit = AdaptiveLimit(max=64, start=4)

        @self.router.job(Grind, concurrency=limit)
        async def grind(job: Grind, _context: Context) -> None:
            await self.run(job.number)

        @self.router.request(Weigh, concurrency=limit)
        async def weigh(request: Weigh) -> None:
            await self.run(request.number)

    async def run(self, number: int) -> None:
        self.runs[number] += 1
        self.running += 1
        try:
            await self.go.wait()
        finally:
            self.running -= 1


@pytest.mark.parametrize("kind", ["jobs", "requests"])
async def test_a_change_of_the_prefetch_requeues_and_loses_no_unacked_message(
    kind: str, vhost_url: str, shared_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill, settings = Mill(), Settings(url=SecretStr(vhost_url), request_timeout=60)
    async with Bus("sawmill", settings=settings) as server, server.serving(mill.router):
        consumer = next(
            each for each in server._server.consumers if f".{kind}." in f".{each.name}."
        )
        mill.go.set()
        await send(server, kind, -1)
        await until(lambda: mill.runs.pop(-1, 0), "the first message")
        if kind == "jobs":  # the first consumer of jobs has a prefetch of 1, and is replaced
            await until(lambda: consumer._raising and consumer._raising.done(), "the full prefetch")
        mill.go.clear()
        sent = [asyncio.create_task(send(server, kind, number)) for number in range(40)]
        slots = consumer.state.slots
        # Only the test changes the slots, because the measured limit differs on a busy machine.
        monkeypatch.setattr(GradientLimit, "limit", property(lambda _: slots.limit))
        await until(lambda: mill.running >= 4, "four running messages")

        slots.resize(20)
        await until(lambda: consumer.change_prefetch(20), "the next change")
        # A request that is acked late needs the prefetch, so more than the old prefetch can run.
        await until(lambda: mill.running >= 16, "more running messages")
        assert not consumer.change_prefetch(8)  # the first four are not handled yet

        mill.go.set()
        await until(lambda: len(mill.runs) >= 30, "handled messages")
        await until(lambda: consumer.change_prefetch(8), "the end of the first change")
        slots.resize(8)
        for task in sent:
            await task
        await until(lambda: len(mill.runs) == 40, "all messages")
        assert set(mill.runs.values()) == {1}
        await until(lambda: not consumer.state.in_flight.tasks, "the last ack")
        where = BrokerAddress(url=vhost_url, management_url=management_url(shared_broker))
        seen = await inspect_queues(where, QueueFilter(service="sawmill", guesses=(consumer.name,)))
        assert {each.ready for each in seen.queues} == {0}

        mill.go.clear()
        more = [asyncio.create_task(send(server, kind, number)) for number in range(40, 70)]
        await until(lambda: mill.running == 8, "messages up to the lower limit")
        assert len(mill.runs) == 48
        assert consumer.prefetch == 8
        mill.go.set()
        for task in more:
            await task
        await until(lambda: len(mill.runs) == 70, "all messages")
        assert set(mill.runs.values()) == {1}


async def send(bus: Bus, kind: str, number: int) -> None:
    if kind == "jobs":
        await bus.submit(Grind(number=number))
    else:
        await bus.request(Weigh(number=number))
