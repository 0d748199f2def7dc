"""Tests of the dead-letter tools on every transport."""

import asyncio
import sys
from typing import Any

import pytest

from bus.contracts.contract import contract_of
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import InvalidArgument, NotFound, ResourceExhausted
from bus.messaging.context import Context
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import dead_letter_address, retry_address
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import dead_letter_queue, event_queue, unroutable_queue
from bus.operations.dead_letters import (
    EVERYTHING,
    DeadLetter,
    ReplayOptions,
    ReplayReport,
    Selection,
    browse,
    browse_queue,
    purge,
    replay,
)
from bus.runtime.router import Router
from tests.conformance.contracts import Told, Word, Write
from tests.conformance.ports import to_jobs, work_of
from tests.conformance.world import Inbox, Side, World, message, until

WORK, TOPOLOGY = work_of("desk", "1s")
DEAD = dead_letter_queue(WORK.name)


async def with_dead(world: World, *letters: Envelope) -> Side:
    """Declare a work queue, and put these dead letters into its dead-letter queue."""
    desk = await world.connect()
    await desk.transport.declare(TOPOLOGY)
    for each in letters:
        await desk.send(each, dead_letter_address(WORK.name))
    return desk


def died(id_: str, code: str = "internal", *, at: int = 1_000, **attributes: Any) -> Envelope:
    headers = {
        "dead-code": code,
        "dead-at": at,
        "dead-attempts": 5,
        "first-failed-at": 500,
        "mine": "kept",
    }
    return message(id_, attempt=5, **{"headers": headers, **attributes})


def how(world: World, **changes: Any) -> ReplayOptions:
    return ReplayOptions(**{"by": "ann@host", "clock": world.clock, **changes})


async def counted(world: World, count: int, queue: str = DEAD) -> None:
    """Wait until `count` messages are ready.

    The broker counts requeued messages a moment later, and `browse` depends on this number.
    """

    async def ready() -> bool:
        return await world.depth(queue) == count

    await until(ready, f"{count} in {queue}")


def ids(letters: list[DeadLetter]) -> list[str]:
    return [each.id for each in letters]


async def test_dead_letters_are_looked_at_oldest_first_and_stay(world: World) -> None:
    desk = await with_dead(world, *(died(str(number), at=1_000 + number) for number in range(5)))
    for limit in (10, 10, 2, 10):
        assert (
            ids(await browse(desk.transport, WORK.name, limit=limit))
            == ["0", "1", "2", "3", "4"][:limit]
        )
        await counted(world, 5)
    assert await world.consumers(DEAD) == 0


async def test_an_empty_queue_of_dead_letters_is_told_at_once_and_a_missing_one_by_name(
    world: World,
) -> None:
    desk = await with_dead(world)
    assert await browse(desk.transport, WORK.name) == []
    with pytest.raises(NotFound, match=r"desk\.jobs\.nowhere\.v1 has no dead-letter queue"):
        await browse(desk.transport, "desk.jobs.nowhere.v1")


async def test_dead_letters_that_were_looked_at_fifty_times_are_still_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await with_dead(world, died("1"), died("2", at=1_001))
    module = sys.modules[
        "bus.operations.dead_letters.browse"
    ]  # the package has a function of this name
    monkeypatch.setattr(module, "UNCOUNTED_DELIVERY_SECONDS", 0.01)
    for _ in range(50):
        await browse(desk.transport, WORK.name)
    assert len(await world.holds(DEAD, 2)) == 2


async def test_a_selection_takes_some_and_leaves_the_others_in_their_order(world: World) -> None:
    desk = await with_dead(
        world,
        died("1"),
        died("2", "not_found", at=1_001),
        died("3", at=1_002),
        died("4", "not_found", at=1_003),
    )
    chosen = Selection(codes=frozenset({"not_found"}))
    assert ids(await browse(desk.transport, WORK.name, chosen)) == ["2", "4"]
    await counted(world, 4)
    assert ids(await browse(desk.transport, WORK.name, chosen, limit=1)) == ["2"]
    await counted(world, 4)
    found = await browse_queue(desk.transport, DEAD, chosen, most=2)
    assert (len(found.letters), found.not_scanned) == (1, 2)
    await counted(world, 4)
    assert ids(await browse(desk.transport, WORK.name)) == ["1", "2", "3", "4"]


async def test_what_the_broker_gave_up_is_read_from_its_own_notes(world: World) -> None:
    desk = await world.connect()
    queue = Queue(name=WORK.name, role="jobs", arguments={**WORK.arguments, "x-delivery-limit": 1})
    others = tuple(each for each in TOPOLOGY.queues if each.name != queue.name)
    limited = Topology(
        exchanges=TOPOLOGY.exchanges, queues=(*others, queue), bindings=TOPOLOGY.bindings
    )
    inbox = await desk.consume(queue, limited, prefetch=1)
    await desk.send(message("poison", attempt=2), to_jobs("desk.work.v1"))
    for _ in range(2):
        await inbox.next()
        await world.drop_connections(desk)
    await world.holds(DEAD, 1)
    await until(lambda: inbox.consumption.ready, "the connection")
    await counted(world, 1)
    (letter,) = await browse(desk.transport, WORK.name)
    record = letter.record
    assert (letter.id, record.by, record.code, record.queue, record.attempts) == (
        "poison",
        "broker",
        "delivery_limit",
        WORK.name,
        2,
    )
    assert abs((record.last_at or 0) / 1000 - world.clock()) < 60


async def test_a_requeue_that_counts_is_dead_lettered_by_the_broker_at_the_delivery_limit(
    world: World,
) -> None:
    desk = await world.connect()
    queue = Queue(name=WORK.name, role="jobs", arguments={**WORK.arguments, "x-delivery-limit": 2})
    others = tuple(each for each in TOPOLOGY.queues if each.name != queue.name)
    limited = Topology(
        exchanges=TOPOLOGY.exchanges, queues=(*others, queue), bindings=TOPOLOGY.bindings
    )
    inbox = await desk.consume(queue, limited, prefetch=1)
    await desk.send(message("refused"), to_jobs("desk.work.v1"))
    for _ in range(3):
        assert await (await inbox.next()).requeue(counts=True)
    await world.holds(DEAD, 1)
    await counted(world, 1)
    (letter,) = await browse(desk.transport, WORK.name)
    assert (letter.id, letter.record.by, letter.record.code) == (
        "refused",
        "broker",
        "delivery_limit",
    )


async def test_a_replay_moves_all_of_them_to_their_work_queue_as_new(world: World) -> None:
    desk = await with_dead(world, *(died(str(number)) for number in range(120)))
    done = await replay(desk.transport, DEAD, how=how(world, window=7))
    assert done == ReplayReport(matched=120, replayed=120)
    await world.holds(DEAD, 0)
    back = await world.holds(WORK.name, 120)
    assert [wire.message_id for wire in back] == [str(number) for number in range(120)]
    headers = dict(back[0].headers)
    assert (headers["attempt"], headers["replays"], headers["replayed-by"], headers["mine"]) == (
        1,
        1,
        "ann@host",
        "kept",
    )
    assert abs(headers["replayed-at"] / 1000 - world.clock()) < 60
    assert not {"dead-code", "dead-at", "first-failed-at"} & headers.keys()


async def test_a_dry_run_moves_nothing_and_says_what_would_be(world: World) -> None:
    desk = await with_dead(world, died("1"), died("2", expires=1, headers={"dead-at": 1_001}))
    done = await replay(desk.transport, DEAD, how=how(world, dry_run=True))
    assert done == ReplayReport(matched=2, replayed=1, expired=1)
    await counted(world, 2)
    assert ids(await browse(desk.transport, WORK.name)) == ["1", "2"]
    assert await world.depth(WORK.name) == 0


async def test_an_expired_dead_letter_stays_until_it_is_given_more_time(world: World) -> None:
    desk = await with_dead(world, died("late", expires=1), died("fine"))
    assert await replay(desk.transport, DEAD, how=how(world)) == ReplayReport(
        matched=2, replayed=1, expired=1
    )
    await counted(world, 1)
    assert ids(await browse(desk.transport, WORK.name)) == ["late"]
    await counted(world, 1)
    assert await replay(desk.transport, DEAD, how=how(world, extend=60)) == ReplayReport(
        matched=1, replayed=1
    )
    late = next(wire for wire in await world.holds(WORK.name, 2) if wire.message_id == "late")
    assert abs(late.headers["expires"] / 1000 - world.clock() - 60) < 30


async def test_a_replay_takes_only_what_is_meant(world: World) -> None:
    desk = await with_dead(world, died("1"), died("2", "not_found"), died("3", at=1_001))
    done = await replay(
        desk.transport, DEAD, Selection(codes=frozenset({"not_found"})), how=how(world)
    )
    assert done == ReplayReport(matched=1, replayed=1)
    await counted(world, 2)
    assert ids(await browse(desk.transport, WORK.name)) == ["1", "3"]
    assert [wire.message_id for wire in await world.holds(WORK.name, 1)] == ["2"]


async def test_a_replay_keeps_to_its_rate(virtual_world: World) -> None:
    desk = await with_dead(virtual_world, *(died(str(number)) for number in range(20)))
    began = asyncio.get_running_loop().time()
    assert (await replay(desk.transport, DEAD, how=how(virtual_world, rate=2))).replayed == 20
    assert 9.4 < asyncio.get_running_loop().time() - began < 11


async def test_what_dies_again_is_not_replayed_twice_and_remembers_its_replays(
    world: World,
) -> None:
    desk = await world.bus("desk")
    runs: list[str] = []
    router = Router("desk")

    @router.job(Write, retry=RetryPolicy(attempts=1))
    async def write(job: Write, context: Context) -> Word:
        runs.append(context.envelope.id)
        raise InvalidArgument("the pen is empty")

    client = await world.bus("client")
    await world.serve(desk, router)
    jobs = [await client.submit(Write(text=str(number))) for number in range(3)]
    queue = "desk.jobs.write.v1"
    await counted(world, 3, f"{queue}.dead")
    done = await desk.replay(queue, rate=20)
    assert done.replayed == 3
    await until(lambda: len(runs) == 6, "the second failures")
    await counted(world, 3, f"{queue}.dead")
    letters = await desk.dead_letters(queue)
    assert {letter.id for letter in letters} == {job.id for job in jobs}
    assert {letter.headers["replays"] for letter in letters} == {1}
    assert {letter.record.code for letter in letters} == {"invalid_argument"}
    assert all(
        int(letter.headers["replayed-at"]) <= (letter.record.first_at or 0) for letter in letters
    )


async def test_an_events_replay_reaches_the_subscription_that_failed_alone(world: World) -> None:
    desk = await world.bus("desk")
    heard: list[str] = []
    broken = True
    router = Router("desk")

    @router.event(Told, subscription="index", retry=RetryPolicy(attempts=1))
    async def index(event: Told) -> None:
        heard.append("index")
        if broken:
            raise InvalidArgument("no index")

    @router.event(Told, subscription="archive")
    async def archive(event: Told) -> None:
        heard.append("archive")

    await world.serve(desk, router)
    await desk.publish(Told(text="news"))
    queue = event_queue("desk", contract_of(Told), "index")
    await counted(world, 1, f"{queue}.dead")
    broken = False
    assert (await desk.replay(queue)).replayed == 1
    await until(lambda: len(heard) == 3, "the replay")
    assert sorted(heard) == ["archive", "index", "index"]
    await world.holds(f"{queue}.dead", 0)


async def test_what_came_back_from_a_tier_in_vain_can_be_replayed_once_its_queue_is_there_again(
    world: World,
) -> None:
    desk = await world.connect()
    await desk.transport.declare(TOPOLOGY)
    await world.delete_queue(WORK.name)
    await desk.send(message("1", attempt=2), retry_address("desk", "1s", WORK.name))
    lost = unroutable_queue("desk")
    await world.holds(lost, 1)
    await counted(world, 1, lost)
    (letter,) = (await browse_queue(desk.transport, lost)).letters
    assert (letter.record.by, letter.record.code, letter.record.queue) == (
        "broker",
        "unroutable",
        WORK.name,
    )
    await counted(world, 1, lost)
    assert await replay(desk.transport, lost, how=how(world)) == ReplayReport(matched=1, no_queue=1)
    await counted(world, 1, lost)
    await desk.transport.declare(TOPOLOGY)
    assert await replay(desk.transport, lost, how=how(world)) == ReplayReport(matched=1, replayed=1)
    assert [wire.message_id for wire in await world.holds(WORK.name, 1)] == ["1"]


async def test_a_full_work_queue_ends_a_replay_and_keeps_what_it_did_not_take(world: World) -> None:
    desk = await with_dead(world, *(died(str(number)) for number in range(30)))
    await world.limit(WORK.name, 3)

    # The policy takes effect after a moment, and a quorum queue refuses late.
    async def full() -> bool:
        done = await replay(desk.transport, DEAD, how=how(world, window=1))
        return isinstance(done.failure, ResourceExhausted)

    await until(full, "a refusal")
    waiting = await world.depth(WORK.name)
    assert len(await world.holds(DEAD, 30 - waiting)) == 30 - waiting


async def test_a_connection_that_goes_during_a_replay_loses_nothing(world: World) -> None:
    desk = await with_dead(world, *(died(str(number)) for number in range(40)))
    # At this rate the replay takes 10 s.
    moving = asyncio.create_task(replay(desk.transport, DEAD, how=how(world, window=4, rate=4)))

    async def begun() -> bool:
        return await world.depth(WORK.name) >= 5

    await until(begun, "the first moves")
    await world.drop_connections(desk)
    done = await moving
    assert done.failure is not None
    assert done.replayed + done.uncertain < 40
    rest = await replay(desk.transport, DEAD, how=how(world))
    assert rest.failure is None
    await world.holds(DEAD, 0)
    back = [wire.message_id for wire in await world.peek(WORK.name)]
    assert set(back) == {str(number) for number in range(40)}
    assert len(back) - 40 <= 4


async def test_a_purge_deletes_exactly_what_is_meant(world: World) -> None:
    desk = await with_dead(
        world, died("1"), died("2", "not_found"), died("3", at=1_001), died("2", at=2_000)
    )
    (chosen, _) = await browse(desk.transport, WORK.name, Selection(ids=frozenset({"2"})))
    await counted(world, 4)
    done = await purge(desk.transport, DEAD, Selection(keys=frozenset({chosen.key})))
    assert (done.deleted, done.failure) == (1, None)
    await counted(world, 3)
    assert ids(await browse(desk.transport, WORK.name)) == ["1", "3", "2"]
    await counted(world, 3)
    assert (await purge(desk.transport, DEAD, EVERYTHING)).deleted == 3
    await world.holds(DEAD, 0)


async def test_a_look_leaves_nothing_with_who_looked(world: World) -> None:
    """Check that a client which browsed and stays connected holds no dead letters."""
    desk = await with_dead(world, died("1"))
    other = await world.connect("other")
    await browse(desk.transport, WORK.name)
    inbox: Inbox = await other.consume(Queue(name=DEAD, role="dead"), Topology())
    assert (await inbox.next()).envelope.id == "1"
