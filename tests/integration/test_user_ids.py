"""Tests of `user_id` with a broker user for each service.

A message has the user of its sender. A copy that another service makes has no `user_id`, because
the broker refuses the id of another user. So the real service makes each copy on a real broker.
The copies are those of retry tiers and the return path, dead letters of the bus and of the broker,
replays, imported exports, and migrations.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from pydantic import SecretStr

from bus import (
    Bus,
    Context,
    InvalidArgument,
    Job,
    Message,
    RetryPolicy,
    Router,
    Settings,
    Unavailable,
    contract,
)
from bus.contracts.contract import contract_of
from bus.messaging.topology.names import DEAD, dead_letter_queue, retry_return_exchange, retry_tier
from bus.operations.brokers.broker import Broker
from bus.operations.topology.apply import apply
from bus.operations.topology.migrate import migrate
from bus.operations.topology.permissions import ADMINISTRATOR
from bus.runtime.requirements import required_by
from bus.security.grants import Grants, ServiceGrants
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from tests.broker import management_url
from tests.integration.broker_users import Place, place_for
from tests.integration.command import bus
from tests.polling import until

pytestmark = pytest.mark.timeout(180)

PATIENCE = 60
SENDERS = ("farm", "mill")
"""The other service, and the service that handles the jobs."""
WAYS = ("lane", "plain", "faststream")


class Flour(Message):
    sacks: int


@contract("mill.grind", version=1)
class Grind(Job[Flour]):
    corn: str


WORK = "mill.jobs.grind.v1"
GRANTS = Grants({name: ServiceGrants(call=frozenset({"mill.grind"})) for name in SENDERS})
CONTRACTS = [contract_of(Grind)]


class Mill:
    """A service that grinds wheat at the second attempt, and stones only after `mended` is set."""

    def __init__(self) -> None:
        self.mended = False
        self.ground: list[str] = []
        self.router = Router("mill")
        self.router.job(Grind, retry=RetryPolicy(attempts=2, first_delay=1, factor=1))(self.grind)

    async def grind(self, job: Grind, context: Context) -> Flour:
        if job.corn == "stones" and not self.mended:
            raise InvalidArgument("no corn")
        if job.corn == "wheat" and context.envelope.attempt == 1:
            raise Unavailable("no wind")
        self.ground.append(job.corn)
        return Flour(sacks=1)


@pytest.fixture
def mill() -> Mill:
    return Mill()


@pytest.fixture
async def place(shared_broker: Broker, vhost_url: str, mill: Mill) -> AsyncIterator[Place]:
    async with place_for(shared_broker, vhost_url, [mill.router], GRANTS, CONTRACTS) as place:
        yield place


def of(place: Place, service: str, way: str) -> Bus:
    settings = place.settings(service, fastlane=way == "lane")
    if way != "faststream":
        return Bus(service, settings=settings)
    return Bus(
        service,
        settings=settings,
        transport=FastStreamTransport(
            broker_of_its_own(settings, name=service), settings=settings, name=service
        ),
    )


@asynccontextmanager
async def tapped(place: Place) -> AsyncIterator[list[tuple[str, str | None]]]:
    """Record the exchange and the `user_id` of all copies during the block."""
    copies: list[tuple[str, str | None]] = []

    async def take(message: DeliveredMessage) -> None:
        copies.append((message.exchange or "", message.header.properties.user_id))

    connection = await aiormq.connect(place.address(ADMINISTRATOR))
    try:
        channel = await connection.channel()
        queue = (await channel.queue_declare("", exclusive=True)).queue or ""
        for exchange in (DEAD, retry_tier("mill", "1s"), retry_return_exchange("mill")):
            await channel.queue_bind(queue, exchange, routing_key=WORK)
        await channel.basic_consume(queue, take, no_ack=True)
        yield copies
    finally:
        await connection.close()


async def user_ids(place: Place, queue: str) -> list[str | None]:
    """Return the `user_id` of each message in a queue, and leave the messages there."""
    return [
        each["properties"].get("user_id") for each in await taken(place, queue, "ack_requeue_true")
    ]


async def taken(place: Place, queue: str, ackmode: str) -> list[dict[str, Any]]:
    """Return the messages of a queue; `ackmode` sets how the broker settles them."""
    how = {"count": 10, "ackmode": ackmode, "encoding": "auto"}
    found: list[dict[str, Any]] = await place.api.call(
        "POST", f"queues/{place.vhost}/{queue}/get", how
    )
    return found


async def dead(worker: Bus, number: int) -> None:
    """Wait until the work queue has `number` dead letters."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if len(await worker.dead_letters(WORK)) == number:
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sender", SENDERS)
async def test_retries_dead_letters_and_replays_work_and_carry_no_other_than_their_makers(
    place: Place, mill: Mill, sender: str, way: str
) -> None:
    own = "mill" if sender == "mill" else None
    async with of(place, sender, way) as asking:
        broken = await asking.submit(Grind(corn="stones"), timeout=PATIENCE)
        assert await user_ids(place, WORK) == [sender]
        async with (
            tapped(place) as copies,
            of(place, "mill", way) as worker,
            worker.serving(mill.router),
        ):
            with pytest.raises(InvalidArgument, match="no corn"):
                await broken.result(timeout=PATIENCE)
            retried = await asking.submit(Grind(corn="wheat"), timeout=PATIENCE)
            await retried.result(timeout=PATIENCE)
            await dead(worker, 1)
            mill.mended = True
            assert (await worker.replay(WORK)).replayed == 1
            await until(lambda: mill.ground == ["wheat", "stones"], "the replay")
            await until(lambda: len(copies) >= 4, "the copies")
    back = retry_return_exchange("mill")
    assert sorted(copies, key=str) == sorted(
        [(DEAD, own), (retry_tier("mill", "1s"), own), (back, own), (back, own)], key=str
    )


async def test_what_the_broker_gives_up_keeps_its_senders_and_its_replay_has_none(
    place: Place, mill: Mill
) -> None:
    async with of(place, "farm", "lane") as asking:
        await asking.submit(Grind(corn="oats"), timeout=PATIENCE)
    await rejected(place)
    async with of(place, "mill", "lane") as worker:
        await dead(worker, 1)
        assert await user_ids(place, dead_letter_queue(WORK)) == ["farm"]
        assert (await worker.replay(WORK)).replayed == 1
        assert await user_ids(place, WORK) == [None]
        async with worker.serving(mill.router):
            await until(lambda: mill.ground == ["oats"], "the replay")


async def rejected(place: Place) -> None:
    """Let the broker dead-letter the messages in the work queue."""
    await taken(place, WORK, "reject_requeue_false")


async def test_what_was_exported_is_put_back_without_one(
    place: Place, mill: Mill, tmp_path: Path
) -> None:
    async with of(place, "farm", "lane") as asking:
        await asking.submit(Grind(corn="oats"), timeout=PATIENCE)
    await rejected(place)
    file, where = (
        str(tmp_path / "letters.jsonl"),
        {"BUS_URL": place.address("mill"), "BUS_TOPOLOGY": "verify"},
    )
    async with of(place, "mill", "lane") as worker:
        await dead(worker, 1)
        for command in (
            ("export", file, "--reveal", "--queue", WORK),
            ("purge", "--all", "--yes", "--queue", WORK),
            ("import", file),
        ):
            done = await bus("dead", *command, **where)
            assert done.code == 0, done.err
        assert await user_ids(place, dead_letter_queue(WORK)) == [None]
        replayed = await bus("dead", "replay", "--all", "--queue", WORK, **where)
        assert replayed.code == 0, replayed.err
        assert await user_ids(place, WORK) == [None]
        async with worker.serving(mill.router):
            await until(lambda: mill.ground == ["oats"], "the replay")


async def test_what_was_moved_by_a_migration_has_none(
    place: Place, mill: Mill, shared_broker: Broker
) -> None:
    settings = Settings(
        url=place.settings(ADMINISTRATOR).url,
        management_url=SecretStr(management_url(shared_broker)),
    )
    needed = required_by([mill.router], settings)
    old: dict[str, Any] = {
        "durable": True,
        "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 1000},
    }
    await place.api.call("DELETE", f"queues/{place.vhost}/{WORK}")
    await place.api.call("PUT", f"queues/{place.vhost}/{WORK}", old)
    await apply(needed, settings)
    async with of(place, "farm", "lane") as asking:
        await asking.submit(Grind(corn="oats"), timeout=PATIENCE)
        assert await user_ids(place, WORK) == ["farm"]
        moved = await migrate(WORK, needed, settings)
        assert moved is not None
        assert moved.moved == 1
        assert await user_ids(place, WORK) == [None]
        async with of(place, "mill", "lane") as worker, worker.serving(mill.router):
            await until(lambda: mill.ground == ["oats"], "the job")
