"""Tests of the idempotent receiver: a message has one effect, however often it is delivered."""

import asyncio

import pytest
from typing_extensions import override

from bus.contracts.contract import encode
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.messaging.ports.transport import Accepted
from bus.messaging.topology.addresses import address_of
from bus.messaging.topology.declarations import reply_topology
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings
from bus.storage.memory.inbox import MemoryInbox
from tests.conformance.contracts import Look, Told, Word, Write
from tests.conformance.memory_world import MemoryWorld
from tests.conformance.test_jobs import QUEUE
from tests.conformance.world import World, until


def copy_of_a_job() -> Envelope:
    return Envelope(
        id=new_id(),
        type="desk.write.v1",
        role="job",
        source="client",
        body=encode(Write(text="once")),
    )


async def test_copies_that_a_doubtful_sender_makes_of_a_job_are_handled_once(world: World) -> None:
    desk, sender = await world.bus("desk"), await world.connect("client")
    done, router = list[str](), Router("desk")

    @router.job(Write, concurrency=3)
    async def write(job: Write) -> Word:
        done.append(job.text)
        return Word(text=job.text)

    await world.serve(desk, router)
    job = copy_of_a_job()
    for _ in range(3):
        assert await sender.send(job, address_of("job", job.type)) == Accepted()
        await world.holds(QUEUE, 0)
    last = copy_of_a_job()
    assert await sender.send(last, address_of("job", last.type)) == Accepted()
    await until(lambda: len(done) >= 2, "the last job")
    assert done == ["once", "once"]


async def test_each_subscription_handles_an_event_once(world: World) -> None:
    desk, sender = await world.bus("desk"), await world.connect("other")
    seen, router = list[str](), Router("desk")

    @router.event(Told)
    async def one(_: Told) -> None:
        seen.append("one")

    @router.event(Told, subscription="second")
    async def another(_: Told) -> None:
        seen.append("another")

    await world.serve(desk, router)
    event = Envelope(
        id=new_id(),
        type="desk.told.v1",
        role="event",
        source="desk",
        body=encode(Told(text="once")),
    )
    for _ in range(3):
        await sender.send(event, address_of("event", event.type))
    for queue in router.endpoints:
        await world.holds(queue, 0)
    assert sorted(seen) == ["another", "one"]


async def test_the_duplicate_of_an_idempotent_request_is_given_the_same_answer(
    world: World,
) -> None:
    desk, asker = await world.bus("desk"), await world.connect("client")
    router = Router("desk")
    answers = iter(["first", "second"])

    @router.request(Look)
    async def look(_: Look) -> Word:
        return Word(text=next(answers))

    await world.serve(desk, router)
    topology = reply_topology("client", "1")
    (queue,) = topology.queues
    inbox = await asker.consume(queue, topology, acks=False)
    question = Envelope(
        id=new_id(),
        type="desk.look.v1",
        role="request",
        source="client",
        body=encode(Look()),
        reply_to=queue.name,
        expiration=9000,
    )
    for _ in range(2):
        await asker.send(question, address_of("request", question.type))
        reply = (await inbox.next()).envelope
        assert (reply.in_reply_to, reply.body) == (question.id, encode(Word(text="first")))


class Distant(MemoryInbox):
    """A store that can be unavailable, like one on another machine."""

    away = True

    def __init__(self, call: str) -> None:
        super().__init__()
        self._call = call

    @override
    async def find(self, key: MessageKey) -> HandledMessage | None:
        self._reached("find")
        return await super().find(key)

    @override
    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        self._reached("add")
        await super().add(key, handled)

    def _reached(self, call: str) -> None:
        if self.away and call == self._call:
            raise OSError("the store is away")


@pytest.mark.parametrize("call", ["find", "add"])
async def test_while_the_store_is_away_jobs_wait_and_none_is_given_up_or_done_twice(
    virtual_world: MemoryWorld, call: str
) -> None:
    """Check that waiting jobs are not requeued: each requeue would count as a lost delivery."""
    inbox, settings = Distant(call), Settings()
    transport = await virtual_world.new_transport("desk", settings)
    desk = await virtual_world.closing.enter_async_context(
        Bus("desk", settings=settings, transport=transport, clock=virtual_world.clock, inbox=inbox)
    )
    client = await virtual_world.bus("client")
    done, router = list[str](), Router("desk")

    @router.job(Write, concurrency=3)
    async def write(job: Write) -> Word:
        done.append(job.text)
        return Word(text=job.text)

    await virtual_world.serve(desk, router)
    jobs = [await client.submit(Write(text=str(number))) for number in range(5)]
    await asyncio.sleep(120)
    inbox.away = False
    assert {(await job.result(timeout=30)).text for job in jobs} == {"0", "1", "2", "3", "4"}
    assert sorted(done) == ["0", "1", "2", "3", "4"]
    assert await desk.dead_letters(QUEUE) == []
