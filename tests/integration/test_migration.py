"""Tests of the migration of a queue, which recreates it and keeps its messages.

They kill it at every step, publish during it, and check what it refuses.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic

from bus import Aborted, FailedPrecondition, NotFound
from bus.operations.brokers.broker import Broker
from bus.operations.topology.apply import apply, plan
from bus.operations.topology.migrate import MigrationProgress, migrate
from bus.runtime.requirements import required_by
from bus.transports.rabbitmq.queue_depth import QueueDepth, depth_by
from tests.integration.command import bus
from tests.integration.ledger import DEAD, TIER, WORK, Place, router
from tests.polling import until

ROOT = Path(__file__).parents[2]
TYPE, MESSAGES = "books.close.v1", 600
OLD: Mapping[str, Mapping[str, str | int]] = {
    "quorum": {"x-queue-type": "quorum", "x-delivery-limit": 1000},
    "classic": {},
}
HOLDING = f"bus.holding.{WORK}"
DEATHS = (
    ("the migration queue is declared", 0),
    (f"moving to {HOLDING}", 100),
    (f"moving to {HOLDING}", 100),
    (f"bound {HOLDING}", 0),
    (f"unbound {WORK}", 0),
    (f"{WORK} is empty", 0),
    ("the old queue is deleted", 0),
    ("the new queue is declared", 0),
    (f"moving to {WORK}", 100),
    (f"bound {WORK}", 0),
    (f"unbound {HOLDING}", 0),
    (f"{HOLDING} is empty", 0),
    ("the migration queue is deleted", 0),
)
"""Every step and the middle of both moves, in their order.

A migration that is killed there continues from there when it is run again.
"""


@pytest.fixture
def place(shared_broker: Broker, vhost_url: str) -> Place:
    return Place(shared_broker, vhost_url)


@asynccontextmanager
async def channel(place: Place) -> AsyncIterator[Channel]:
    connection = await aiormq.connect(place.url)
    try:
        yield cast("Channel", await connection.channel(publisher_confirms=True))
    finally:
        await connection.close()


async def with_old_queue(
    place: Place, on: Channel, arguments: Mapping[str, str | int], name: str = WORK
) -> None:
    """Create the service's topology, with the arguments of an earlier version for one queue."""
    await on.queue_declare(name, durable=True, arguments={**arguments})
    await apply(required_by([router], place.settings), place.settings)


async def publish(on: Channel, ids: range, *, exchange: str = "bus.jobs", key: str = TYPE) -> None:
    async def one(number: int) -> None:
        properties = Basic.Properties(
            message_id=str(number), message_type=TYPE, delivery_mode=2, headers={"attempt": 1}
        )
        await on.basic_publish(
            b"%d" % number,
            exchange=exchange,
            routing_key=key,
            properties=properties,
            mandatory=True,
        )

    await asyncio.gather(*(one(number) for number in ids))


async def drained(on: Channel, queue: str) -> list[DeliveredMessage]:
    """Consume all messages of a queue, and return them in their order."""
    found: list[DeliveredMessage] = []

    async def take(message: DeliveredMessage) -> None:
        found.append(message)

    count = (await depth_by(on, queue)).ready
    await on.basic_consume(queue, take, no_ack=True)
    await until(lambda: len(found) >= count, f"{count} messages of {queue}")
    return found


def ids(messages: list[DeliveredMessage]) -> list[int]:
    return [int(message.header.properties.message_id or -1) for message in messages]


def again(message: DeliveredMessage) -> bool:
    return (message.header.properties.headers or {}).get("redelivered") is True


@pytest.mark.parametrize("kind", OLD)
async def test_messages_keep_their_order_and_all_that_is_theirs(place: Place, kind: str) -> None:
    async with channel(place) as own:
        await with_old_queue(place, own, OLD[kind])
        await publish(own, range(MESSAGES))
        done = await migrate(WORK, required_by([router], place.settings), place.settings)
        assert (await plan(required_by([router], place.settings), place.settings)).differences == ()
        await publish(own, range(MESSAGES, MESSAGES + 1))  # this checks the bindings
        found = await drained(own, WORK)

    assert done
    assert (done.moved, done.redelivered) == (MESSAGES, 0)
    assert ids(found) == [*range(MESSAGES + 1)]
    assert [message.body for message in found] == [b"%d" % number for number in range(MESSAGES + 1)]
    assert {str(dict(message.header.properties).get("headers")) for message in found} == {
        "{'attempt': 1}"
    }


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", OLD)
async def test_killed_at_every_step_nothing_is_lost_and_what_is_there_twice_says_so(
    place: Place, kind: str
) -> None:
    async with channel(place) as own:
        await with_old_queue(place, own, OLD[kind])
        await publish(own, range(MESSAGES))
        ended = await migrated_by(place, DEATHS)
        assert (await plan(required_by([router], place.settings), place.settings)).differences == ()
        found = await drained(own, WORK)

    counts = Counter(ids(found))
    assert set(counts) == set(range(MESSAGES))
    twice = {number for number, count in counts.items() if count > 1}
    assert twice <= {
        number for number, message in zip(ids(found), found, strict=True) if again(message)
    }
    assert ended == [*(-signal.SIGKILL for _ in DEATHS), 0]


async def migrated_by(
    place: Place, deaths: Sequence[tuple[str, int]], *, last: bool = True
) -> list[int]:
    """Run migrations that are killed there, and a last one that is not; return the exit codes."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "tests.integration.doomed",
            WORK,
            json.dumps([*deaths, *([("", 0)] if last else [])]),
        ),
        cwd=ROOT,
        env={**os.environ, **place.environment},
        stdout=subprocess.PIPE,
    )
    codes: list[int] = json.loads((await process.communicate())[0])
    return codes


async def test_who_wants_the_old_arguments_again_gets_back_what_is_held(place: Place) -> None:
    wanted = required_by([router], place.settings)
    queues = tuple(
        replace(each, arguments=OLD["quorum"]) if each.name == WORK else each
        for each in wanted.topology.queues
    )
    earlier = replace(wanted, topology=replace(wanted.topology, queues=queues))
    async with channel(place) as own:
        await with_old_queue(place, own, OLD["quorum"])
        await publish(own, range(MESSAGES))
        process = await migrated_by(place, [(f"unbound {WORK}", 0)], last=False)
        await publish(own, range(MESSAGES, MESSAGES + 1))
        await migrate(WORK, earlier, place.settings)
        found = await drained(own, WORK)
    assert process == [-signal.SIGKILL]
    assert set(ids(found)) == {*range(MESSAGES + 1)}


async def test_what_is_published_meanwhile_is_there_afterwards(place: Place) -> None:
    sent = 0
    done = asyncio.Event()

    async def publishing(on: Channel) -> None:
        nonlocal sent
        while not done.is_set():
            await publish(on, range(sent, sent + 20))
            sent += 20

    async with channel(place) as own, channel(place) as other:
        await with_old_queue(place, own, OLD["quorum"])
        publisher = asyncio.create_task(publishing(other))
        await until(lambda: sent > 100, "something to move")
        await migrate(WORK, required_by([router], place.settings), place.settings)
        done.set()
        await publisher
        found = await drained(own, WORK)
    assert set(ids(found)) == set(range(sent))


async def test_a_queue_that_is_consumed_is_left_alone_unless_told_to_wait(place: Place) -> None:
    wanted = required_by([router], place.settings)

    async def take(_: DeliveredMessage) -> None:
        """Keep the message unacked, as a worker that has not finished."""

    async with channel(place) as own:
        await with_old_queue(place, own, OLD["quorum"])
        await publish(own, range(10))
        async with channel(place) as worker:
            await worker.basic_consume(WORK, take)
            with pytest.raises(
                FailedPrecondition, match=rf"{WORK} has 1 consumers\. Stop the workers first"
            ):
                await migrate(WORK, wanted, place.settings)
            with pytest.raises(Aborted, match="still has 1 consumers after 0 s"):
                await migrate(WORK, wanted, place.settings, wait=0)
            await publish(own, range(10, 20))  # into the migration queue by now
            waiting = asyncio.Event()
            migrating = asyncio.create_task(
                migrate(WORK, wanted, place.settings, wait=60, report=lambda p: seen(p, waiting))
            )
            await waiting.wait()
        await migrating
        found = await drained(own, WORK)
    assert sorted(ids(found)) == [*range(20)]


@pytest.mark.parametrize("kind", OLD)
async def test_what_a_worker_that_stops_has_in_hand_is_not_deleted_with_the_queue(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.operations.topology.migrate.ARRIVAL_TIMEOUT_SECONDS", 1.0)
    wanted = required_by([router], place.settings)
    in_hand = asyncio.Event()

    async def take(_: DeliveredMessage) -> None:
        in_hand.set()

    async with channel(place) as own:
        await with_old_queue(place, own, OLD[kind])
        await publish(own, range(10))
        async with channel(place) as worker:
            await worker.basic_qos(prefetch_count=1)
            await worker.basic_consume(WORK, take, consumer_tag="worker")
            await in_hand.wait()
            await worker.basic_cancel("worker")
            with pytest.raises(
                FailedPrecondition,
                match=f"{WORK} has 1 messages that a stopping worker|{WORK} has 1 consumers",
            ):
                await migrate(WORK, wanted, place.settings)
        await migrate(WORK, wanted, place.settings)
        found = await drained(own, WORK)
    assert sorted(ids(found)) == [*range(10)]


def seen(progress: MigrationProgress, waiting: asyncio.Event) -> None:
    if "waiting for 1 consumers" in progress.step:
        waiting.set()


async def test_a_tier_is_made_anew_while_its_messages_come_back_to_where_they_belong(
    place: Place,
) -> None:
    async with channel(place) as own:
        right = required_by([router], place.settings).queue(TIER).arguments
        await with_old_queue(place, own, {**right, "x-message-ttl": 2500}, name=TIER)
        await publish(own, range(20), exchange=TIER, key=WORK)
        await migrate(TIER, required_by([router], place.settings), place.settings)
        await publish(own, range(20, 40), exchange=TIER, key=WORK)
        found: list[DeliveredMessage] = []

        async def take(message: DeliveredMessage) -> None:
            found.append(message)

        await own.basic_consume(WORK, take, no_ack=True)
        await until(lambda: len(found) >= 40, "everything back in the work queue")
    assert sorted(ids(found)) == [*range(40)]
    assert (await plan(required_by([router], place.settings), place.settings)).differences == ()


async def test_dead_letters_keep_what_says_why(place: Place) -> None:
    async with channel(place) as own:
        await with_old_queue(place, own, {"x-queue-type": "quorum"}, name=DEAD)
        await publish(own, range(1))
        message = await own.basic_get(WORK)
        assert message.delivery_tag
        await own.basic_reject(message.delivery_tag, requeue=False)
        await until_arrived(own, DEAD)
        await migrate(DEAD, required_by([router], place.settings), place.settings)
        (found,) = await drained(own, DEAD)
    assert "x-death" in (found.header.properties.headers or {})


async def until_arrived(on: Channel, queue: str) -> None:
    # The broker sends no event for a message in a queue, so the count is polled.
    while not (await depth_by(on, queue)).ready:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_dead_letters_that_nobody_takes_are_not_deleted_with_their_queue(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.operations.topology.migrate.ARRIVAL_TIMEOUT_SECONDS", 1.0)
    async with channel(place) as own:
        right = required_by([router], place.settings).queue(WORK).arguments
        await with_old_queue(place, own, {**right, "x-dead-letter-exchange": "amq.direct"})
        await publish(own, range(1))
        message = await own.basic_get(WORK)
        assert message.delivery_tag
        await own.basic_reject(message.delivery_tag, requeue=False)
        with pytest.raises(FailedPrecondition, match=f"{WORK} has 1 dead letters in flight"):
            await migrate(WORK, required_by([router], place.settings), place.settings)
        # The queue exists. Its count excludes the message that waits to be dead-lettered.
        assert await depth_by(own, WORK) == QueueDepth()


async def test_a_policy_that_would_lose_what_is_held_is_named(place: Place) -> None:
    async with channel(place) as own:
        await with_old_queue(place, own, OLD["quorum"])
        await place.policy(HOLDING, {"message-ttl": 1000})
        with pytest.raises(
            FailedPrecondition,
            match=rf"could lose messages during the migration\. .*: unsafe queue {HOLDING}",
        ):
            await migrate(WORK, required_by([router], place.settings), place.settings)


async def test_a_queue_that_is_right_or_not_there_or_nobodys_is_not_migrated(place: Place) -> None:
    wanted = required_by([router], place.settings)
    with pytest.raises(NotFound, match="Run `bus topology apply` to create it"):
        await migrate(WORK, wanted, place.settings)
    with pytest.raises(
        NotFound,
        match="queue 'books.jobs.close.v0' is not required by these routers; "
        f"did you mean '{WORK}'",
    ):
        await migrate("books.jobs.close.v0", wanted, place.settings)
    await apply(wanted, place.settings)
    assert await migrate(WORK, wanted, place.settings) is None


async def test_the_command_says_what_it_does(place: Place) -> None:
    async with channel(place) as own:
        await with_old_queue(place, own, OLD["quorum"])
        await publish(own, range(10))
    done = await bus(
        "topology", "migrate", "tests.integration.ledger:router", WORK, **place.environment
    )
    assert (done.code, done.out) == (0, "")
    assert f"moving to {HOLDING}" in done.err
    assert (
        done.err.splitlines()[-1]
        == f"{WORK} was created again; 10 messages were moved back, 0 may exist twice"
    )
    once_more = await bus(
        "topology", "migrate", "tests.integration.ledger:router", WORK, **place.environment
    )
    assert (once_more.code, once_more.err) == (
        0,
        f"{WORK} already has the required arguments; nothing to do\n",
    )
    program = await bus(
        "topology",
        "migrate",
        "tests.integration.ledger:router",
        WORK,
        "--json",
        **place.environment,
    )
    assert json.loads(program.out) == {"queue": WORK, "done": False, "moved": 0, "again": 0}
