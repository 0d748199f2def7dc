"""Tests of messages that kill their process: these are dead-lettered, and no others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from bus.contracts.contract import contract_of
from bus.errors import BusError, DeadlineExceeded, ProcessLost
from bus.messaging.context import Context
from bus.messaging.topology.model import merge
from bus.messaging.topology.names import dead_letter_queue, event_queue, job_queue
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from tests.conformance.contracts import Look, Told, Word, Write
from tests.conformance.ports import plain, quorum, to
from tests.conformance.world import World, message, until

LIMIT = 5
QUEUE = job_queue(contract_of(Write))
DEAD = dead_letter_queue(QUEUE)
TOLD = event_queue("desk", contract_of(Told))
KILLER, FOREVER = "killer", 3600


# --- Port ---


async def test_a_quorum_queue_counts_how_often_a_delivery_was_lost_with_its_connection(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox", **{"x-delivery-limit": 100})
    inbox = await desk.consume(queue, topology, prefetch=1)
    await desk.send(message("1"), to("inbox"))
    counts = []
    for _ in range(4):
        delivery = await inbox.next()
        counts.append((delivery.redelivered, delivery.broker_headers.get("x-delivery-count", 0)))
        await world.drop_connections(desk)
    assert counts == [(False, 0), (True, 1), (True, 2), (True, 3)]


async def test_what_was_delivered_and_not_settled_counts_also_where_its_consumer_is_closed(
    world: World,
) -> None:
    desk = await world.connect()
    queue, topology = quorum("inbox", **{"x-delivery-limit": 100})
    await desk.transport.declare(topology)
    await desk.send(message("1"), to("inbox"))
    for losses in range(3):
        inbox = await desk.consume(queue, topology, prefetch=1)
        assert (await inbox.next()).broker_headers.get("x-delivery-count", 0) == losses
        await inbox.consumption.close()


async def test_a_classic_queue_marks_and_does_not_count(world: World) -> None:
    desk = await world.connect()
    queue, topology = plain("inbox")
    inbox = await desk.consume(queue, topology, prefetch=1)
    await desk.send(message("1"), to("inbox"))
    await inbox.next()
    await world.drop_connections(desk)
    again = await inbox.next()
    assert (again.redelivered, "x-delivery-count" in again.broker_headers) == (True, False)


# --- Poison isolation ---


@dataclass
class Lives:
    """Successive processes of one service.

    Each ends when a handler calls `die`, and loses its connection as a killed process does.
    """

    world: World
    deaths: int = 0
    begun: Counter[str] = field(default_factory=Counter)
    done: list[tuple[str, int]] = field(default_factory=list)
    here: int = 0
    """Number of handlers that run in the current process."""
    _died: asyncio.Event = field(default_factory=asyncio.Event)

    async def die(self) -> None:
        self._died.set()
        await asyncio.sleep(FOREVER)

    @asynccontextmanager
    async def running(self, text: str) -> AsyncIterator[None]:
        self.begun[text] += 1
        self.here += 1
        try:
            yield
        finally:
            self.here -= 1

    async def until(
        self, over: Callable[[], object | Awaitable[object]], router: Router, **settings: Any
    ) -> None:
        """Run processes, one after the other, until `over()` is true."""
        while not await self._life(over, router, settings):
            self.deaths += 1
            assert self.deaths < 40, self.begun

    async def _life(
        self,
        over: Callable[[], object | Awaitable[object]],
        router: Router,
        settings: dict[str, Any],
    ) -> object:
        self._died.clear()
        bus = await self.world.bus("desk", delivery_limit=LIMIT, stop_grace=0, **settings)
        async with bus.serving(router):
            await until(lambda: True if self._died.is_set() else over(), "the process's end", 60)
            if self._died.is_set():
                # All channels must end at once: a message that one of them returns must not be
                # delivered on another.
                await self.world.drop_connections(bus)
                await bus._transport.close()
        return not self._died.is_set()


async def holds(world: World, queue: str, count: int) -> bool:
    return await world.depth(queue) == count


async def declared(world: World, router: Router, service: str = "client") -> Bus:
    """Return a client, after it has declared the router's queues."""
    client = await world.bus(service)
    await client._transport.declare(merge(topology for _, topology in router.topology().values()))
    return client


@pytest.mark.parametrize("killers", [1, 3])
async def test_a_killer_is_dead_lettered_and_its_neighbours_are_handled_at_their_first_attempt(
    world: World, killers: int
) -> None:
    lives, router, neighbours = Lives(world), Router("desk"), [str(number) for number in range(12)]
    company: dict[str, list[int]] = {}

    @router.job(Write, concurrency=20)
    async def write(job: Write, context: Context) -> Word:
        async with lives.running(job.text):
            if job.text.startswith(KILLER):
                await until(
                    lambda: lives.deaths or lives.here == len(neighbours) + killers,
                    "all that are delivered to have begun",
                )
                company.setdefault(job.text, []).append(lives.here)
                await lives.die()
            # At the first kill the neighbours are running, and have had no effect yet.
            if not lives.deaths:
                await asyncio.sleep(FOREVER)
            lives.done.append((job.text, context.envelope.attempt))
        return Word(text="")

    client = await declared(world, router)
    texts = [*neighbours[:6], *(f"{KILLER}-{number}" for number in range(killers)), *neighbours[6:]]
    handles = {text: await client.submit(Write(text=text), timeout=5) for text in texts}

    await lives.until(lambda: holds(world, DEAD, killers), router)
    dead = await world.peek(DEAD)
    for number in range(killers):
        with pytest.raises(ProcessLost):
            await handles[f"{KILLER}-{number}"].result(timeout=10)
    assert set(lives.done) == {(text, 1) for text in neighbours}, (
        "one whose ack went down with the process is done again"
    )
    assert {letter.headers["dead-code"] for letter in dead} == {"process_lost"}
    assert {(letter.headers["dead-attempts"], letter.headers["dead-queue"]) for letter in dead} == {
        (1, QUEUE)
    }
    assert all(f"{LIMIT} times" in str(letter.headers["dead-reason"]) for letter in dead)
    assert all(lives.begun[f"{KILLER}-{number}"] <= LIMIT for number in range(killers))
    assert sorted(letter.message_id or "" for letter in dead) == sorted(
        handles[f"{KILLER}-{n}"].id for n in range(killers)
    )
    assert {here for runs in company.values() for here in runs[2:]} == {1}, (
        "from the third on they are processed alone"
    )
    await world.holds(QUEUE, 0)


async def test_who_kills_its_process_takes_no_message_of_another_queue_along(world: World) -> None:
    """Include handlers that take too long to end while the killer's process lives."""
    lives, router = Lives(world), Router("desk")

    @router.job(Write, concurrency=4)
    async def write(job: Write) -> Word:
        async with lives.running(KILLER):
            await until(lambda: lives.deaths or lives.here == 3, "the others to have begun")
            await lives.die()
        return Word(text="")

    @router.event(Told, concurrency=4)
    async def told(event: Told, context: Context) -> None:
        async with lives.running(event.text):
            await asyncio.sleep(0.7 if lives.deaths else FOREVER)
            lives.done.append((event.text, context.envelope.attempt))

    client = await declared(world, router, "desk")
    await client.submit(Write(text=KILLER), timeout=5)
    for text in ("a", "b"):
        await client.publish(Told(text=text))

    await lives.until(lambda: holds(world, DEAD, 1), router)
    assert set(lives.done) == {("a", 1), ("b", 1)}
    assert await world.depth(dead_letter_queue(TOLD)) == 0


async def test_a_message_that_was_lost_runs_alone_and_the_others_go_on_afterwards(
    world: World,
) -> None:
    """Kill three processes for reasons outside the messages, which are all handled."""
    lives, router = Lives(world), Router("desk")
    company: dict[str, list[int]] = {}

    @router.job(Write, concurrency=10)
    async def write(job: Write) -> Word:
        async with lives.running(job.text):
            company.setdefault(job.text, []).append(lives.here)
            await asyncio.sleep(0.1)
            if lives.deaths < 3:
                await lives.die()
            lives.done.append((job.text, 1))
        return Word(text="")

    client = await declared(world, router)
    for number in range(4):
        await client.submit(Write(text=f"early-{number}"), timeout=5)
    await lives.until(lambda: len(lives.done) == 4, router)
    assert lives.deaths == 3
    assert {here for runs in company.values() for here in runs[2:]} == {1}
    company.clear()
    bus = await world.bus("desk")
    async with bus.serving(router):
        handles = [await client.submit(Write(text=str(number)), timeout=5) for number in range(20)]
        await asyncio.gather(*(handle.result(timeout=20) for handle in handles))
        assert max(here for runs in company.values() for here in runs) > 1
        await until(lambda: bus.ready, "all to be consumed")
    assert await world.depth(DEAD) == 0


async def test_a_request_that_kills_its_process_ends_at_its_deadline_and_the_others_are_answered(
    world: World,
) -> None:
    lives, router = Lives(world), Router("desk")

    @router.request(Look, concurrency=10)
    async def look(request: Look) -> Word:
        async with lives.running(request.text):
            await until(lambda: lives.deaths or lives.here == 6, "the others")
            if request.text == KILLER:
                await asyncio.sleep(0.5)
                await lives.die()
            if not lives.deaths:
                await asyncio.sleep(FOREVER)
        return Word(text=request.text)

    client = await declared(world, router)
    asked = [asyncio.create_task(client.request(Look(text=text), timeout=20)) for text in "abcde"]
    killer = asyncio.create_task(client.request(Look(text=KILLER), timeout=3))
    await lives.until(lambda: killer.done() and all(each.done() for each in asked), router)
    assert [(await each).text for each in asked] == [*"abcde"]
    with pytest.raises(BusError) as caught:
        await killer
    assert isinstance(caught.value, DeadlineExceeded)


async def test_a_request_is_given_up_after_as_many_losses_where_they_are_counted(
    world: World,
) -> None:
    lives, router = Lives(world), Router("desk")

    @router.request(Look)
    async def look(request: Look) -> Word:
        async with lives.running(request.text):
            await lives.die()
        return Word(text="")

    client = await world.bus("client", request_queue="quorum")
    needs = router.topology(quorum_requests=True)
    await client._transport.declare(merge(topology for _, topology in needs.values()))
    asked = asyncio.create_task(client.request(Look(text=KILLER), timeout=40))
    await lives.until(asked.done, router, request_queue="quorum")
    with pytest.raises(ProcessLost, match=f"{LIMIT} times"):
        await asked
    assert lives.begun[KILLER] <= LIMIT
