"""Tests of `bus topology prune` on a real broker: what it deletes, and what it keeps."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aio_pika
import pytest
from pamqp.common import FieldTable
from pydantic import SecretStr

from bus import Bus, DataLoss, NotFound, PermissionDenied, RetryPolicy, Router, Settings
from bus.messaging.topology.model import Binding
from bus.operations.brokers.broker import Broker
from bus.operations.topology.apply import apply, plan
from bus.operations.topology.broker_state import queue_bindings
from bus.operations.topology.permissions import ADMINISTRATOR
from bus.operations.topology.prune import PruneOptions, PruneResult, prune
from bus.operations.topology.prune_model import Decision
from bus.runtime.requirements import required_by
from bus.security.grants import Grants, ServiceGrants
from bus.transports.rabbitmq.admin import open_admin_session
from bus.transports.rabbitmq.queue_depth import QueueDepth, depth_by
from tests.integration.broker_users import place_for
from tests.integration.command import bus
from tests.integration.ledger import Place
from tests.integration.stock_service import SoldV1, catalog, earlier, on_sold_v1, router, sold
from tests.polling import until

OLD, NEW, ASK = "stock.events.shop.sold.v1", "stock.events.shop.sold.v2", "stock.requests.find.v1"
JOB, TIER = "stock.jobs.count.v1", "stock.retry.1s"
GONE = {OLD, f"{OLD}.dead", JOB, f"{JOB}.dead", ASK, "stock.retry.5s"}
SENT = {"bus.events", "bus.jobs"}
ROUTER = "tests.integration.stock_service:router"


class Interrupted(Exception):
    """The interruption of a run, as by Ctrl-C."""


@pytest.fixture
async def place(shared_broker: Broker, vhost_url: str) -> Place:
    """Return a virtual host with the topology of the earlier code, in which no service runs."""
    place = Place(shared_broker, vhost_url)
    await declare(place, earlier)
    return place


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time for which a queue must be quiet."""
    monkeypatch.setattr("bus.operations.topology.prune_model.QUIET_SECONDS", 0.2)
    monkeypatch.setattr("bus.operations.topology.prune_model.UNBOUND_SECONDS", 0.2)
    monkeypatch.setattr("bus.operations.topology.prune.POLL_INTERVAL_SECONDS", 0.05)


async def declare(place: Place, *routers: Router) -> None:
    settings = place.settings.model_copy(update={"topology": "verify"})
    await apply(required_by(routers, settings), settings)


async def pruned(
    place: Place,
    *routers: Router,
    report: Callable[[Decision], None] = lambda _: None,
    timeout: float = 20,
    told: Iterable[str] = (),
    dry_run: bool = False,
) -> PruneResult:
    options = PruneOptions(timeout=timeout, even_if_used=tuple(told), dry_run=dry_run)
    required = required_by(routers or [router], place.settings)
    return await prune(required, place.settings, options, report)


async def queues(place: Place) -> set[str]:
    rows = await place.api.call("GET", f"queues/{place.vhost}?disable_stats=true")
    return {row["name"] for row in rows}


async def everything(place: Place) -> Any:
    kinds = ("exchanges", "queues", "bindings")
    query = "?disable_stats=true&columns=name,source,destination,routing_key,arguments"
    return [await place.api.call("GET", f"{kind}/{place.vhost}{query}") for kind in kinds]


async def publish(place: Place, exchange: str, key: str, body: bytes = b"{}") -> None:
    async with await place.connect() as connection, connection.channel() as channel:
        target = await channel.get_exchange(exchange, ensure=False)
        await target.publish(aio_pika.Message(body, delivery_mode=2), key)


def left(result: PruneResult) -> dict[str, str]:
    return {each.name: each.action for each in result.left if not each.follows}


async def test_a_dry_run_shows_all_steps_and_changes_nothing(place: Place) -> None:
    before = await everything(place)
    planned = await pruned(place, dry_run=True)
    assert await everything(place) == before
    done = await pruned(place)
    assert sorted(map(str, planned.steps)) == sorted(map(str, done.steps))


async def test_old_queues_are_unbound_and_deleted_and_the_others_stay(place: Place) -> None:
    before = await queues(place)
    done = await pruned(place)
    assert done.left == ()
    assert before - await queues(place) == GONE
    assert (await plan(required_by([router], place.settings), place.settings)).differences == ()
    assert (await pruned(place)).steps == ()


async def test_a_service_without_work_queues_keeps_none_of_its_exchanges(place: Place) -> None:
    done = await pruned(place, Router("stock"))
    assert done.left == ()
    assert await queues(place) == set()
    exchanges = await place.api.call("GET", f"exchanges/{place.vhost}")
    assert not [row["name"] for row in exchanges if row["name"].startswith("stock.")]


async def test_messages_that_arrive_keep_a_queue_and_its_binding(place: Place) -> None:
    await publish(place, "bus.events", "shop.sold.v1")
    done = await pruned(place)
    assert left(done) == {OLD: "keep"}
    assert "it holds 1 message" in next(each.detail for each in done.left if each.name == OLD)
    await publish(place, "bus.events", "shop.sold.v1")
    assert await waiting(place, OLD) == 2


async def waiting(place: Place, queue: str) -> int:
    async with await place.connect() as connection, connection.channel() as channel:
        return (await depth_by(await channel.get_underlay_channel(), queue)).ready


async def test_a_queue_that_is_told_to_be_unbound_keeps_its_messages(place: Place) -> None:
    await publish(place, "bus.events", "shop.sold.v1", b'{"old": true}')
    done = await pruned(place, told=[OLD], timeout=0)
    assert left(done)[OLD] == "wait"
    await publish(place, "bus.events", "shop.sold.v1")
    assert await waiting(place, OLD) == 1


async def test_dead_letters_keep_their_queues_and_are_never_deleted(place: Place) -> None:
    await publish(place, "bus.dead", OLD)
    done = await pruned(place)
    assert left(done) == {OLD: "keep"}
    assert "bus dead list --queue" in next(each.detail for each in done.left if each.name == OLD)
    assert await waiting(place, f"{OLD}.dead") == 1


async def test_a_running_worker_of_the_earlier_code_keeps_its_queues(place: Place) -> None:
    settings = place.settings.model_copy(update={"topology": "verify"})
    async with Bus("stock", settings=settings) as service, service.serving(earlier):
        kept = await pruned(place)
        assert left(kept) == {OLD: "keep", JOB: "keep", ASK: "keep"}
        assert kept.steps == ()


async def test_with_even_if_used_a_run_waits_for_the_end_of_the_earlier_worker(
    place: Place,
) -> None:
    waits = asyncio.Event()

    def report(decision: Decision) -> None:
        if (decision.name, decision.detail) == (OLD, "1 consumer must stop"):
            waits.set()

    settings = place.settings.model_copy(update={"topology": "verify"})
    async with Bus("stock", settings=settings) as service, service.serving(earlier):
        run = asyncio.create_task(pruned(place, report=report, told=[OLD, JOB, ASK]))
        await asyncio.wait_for(waits.wait(), 40)
        assert await queues(place) >= GONE
    assert (await run).left == ()
    assert not GONE & await queues(place)


async def test_requests_that_still_come_keep_their_queue_unless_it_is_named(place: Place) -> None:
    await publish(place, "bus.requests", "stock.find.v1")
    assert left(await pruned(place)) == {ASK: "keep"}
    assert ASK in await queues(place)
    assert (await pruned(place, told=[ASK])).left == ()
    assert ASK not in await queues(place)


async def test_a_message_in_a_retry_tier_returns_to_its_queue_which_is_not_deleted(
    place: Place,
) -> None:
    await publish(place, TIER, OLD)
    reasons: list[str] = []
    done = await pruned(place, report=lambda decision: reasons.append(decision.detail))
    assert f"1 message in {TIER} can return to it within 1s" in reasons
    assert left(done) == {OLD: "keep"}
    assert await waiting(place, OLD) == 1


async def test_a_second_run_finishes_an_interrupted_one(place: Place) -> None:
    for step in ("unbind", "delete"):

        def report(decision: Decision, step: str = step) -> None:
            if decision.action == step and decision.name != ASK:
                raise Interrupted

        with pytest.raises(Interrupted):
            await pruned(place, report=report)
        existing = await queues(place) & {OLD, JOB}
        assert existing <= {each.queue for each in await bound(place) if each.exchange in SENT}
    assert (await pruned(place)).left == ()
    assert not GONE & await queues(place)


async def test_two_runs_at_the_same_time_do_no_harm(place: Place) -> None:
    done = await asyncio.gather(pruned(place), pruned(place))
    assert [each.left for each in done] == [(), ()]
    assert not GONE & await queues(place)
    assert (await plan(required_by([router], place.settings), place.settings)).differences == ()


async def test_a_worker_that_starts_during_a_run_has_its_queues_afterwards(place: Place) -> None:
    unbound = asyncio.Event()
    run = asyncio.create_task(
        pruned(place, report=lambda each: unbound.set() if each.action == "unbind" else None)
    )
    await unbound.wait()
    async with Bus("stock", settings=place.settings) as service, service.serving(earlier):
        await run
        await until(lambda: service.ready, "the worker to be ready")
        found = await plan(required_by([earlier], place.settings), place.settings)
        assert found.differences == ()


async def test_a_worker_that_consumes_while_its_queue_is_unbound_gets_the_binding_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.operations.topology.prune_model.UNBOUND_SECONDS", 60)
    reached = {action: asyncio.Event() for action in ("unbind", "bind")}

    def report(decision: Decision) -> None:
        if decision.name == OLD and decision.action in reached:
            reached[decision.action].set()

    async with await place.connect() as connection, connection.channel() as channel:
        run = asyncio.create_task(pruned(place, report=report, timeout=60))
        await reached["unbind"].wait()
        await (await channel.get_queue(OLD, ensure=False)).consume(take)
        await asyncio.wait_for(reached["bind"].wait(), 40)
        run.cancel()
        await asyncio.wait([run])
        assert OLD in {each.queue for each in await bound(place) if each.exchange == "bus.events"}


async def test_similar_names_and_other_services_are_not_touched(place: Place) -> None:
    similar = [Router(name) for name in ("stock-2", "stocks")]
    for other in similar:
        other.event(SoldV1)(on_sold_v1)
    await declare(place, *similar)
    foreign = ["stock.events.notes.v1", "stock.jobs.pack.v1", "stock"]
    async with await place.connect() as connection, connection.channel() as channel:
        for name in foreign:
            await channel.declare_queue(name, durable=True)
        await channel.declare_queue("stock.replies.host-1", exclusive=True)
        before = await queues(place)
        done = await pruned(place)
        assert before - await queues(place) == GONE
    assert set(done.foreign) == {"stock.events.notes.v1", "stock.jobs.pack.v1"}


async def test_only_the_user_that_declares_the_topology_may_prune(
    shared_broker: Broker, vhost_url: str
) -> None:
    grants = Grants({"stock": ServiceGrants(consume=frozenset({"shop.sold"}))})
    async with place_for(shared_broker, vhost_url, [earlier], grants, tuple(catalog)) as users:
        place = Place(shared_broker, vhost_url)
        administrator, service = users.address(ADMINISTRATOR), users.address("stock")
        login = administrator.removeprefix("amqp://").partition("@")[0]
        api = SecretStr(place.management_url.replace("://", f"://{login}@"))
        place.settings = Settings(url=SecretStr(service), management_url=api, topology="verify")
        before = await queues(place)
        with pytest.raises(PermissionDenied, match="access to queue 'stock"):
            await pruned(place)
        assert await queues(place) == before
        place.settings = Settings(url=SecretStr(administrator), management_url=api)
        assert (await pruned(place)).left == ()
        assert before - await queues(place) == GONE


async def test_an_unbound_queue_is_emptied_by_a_worker_that_does_not_bind_it_again(
    place: Place,
) -> None:
    async with Bus("shop", settings=place.settings) as shop:
        await shop.publish(SoldV1())
    await pruned(place, told=[OLD], timeout=0)
    settings = place.settings.model_copy(update={"topology": "verify", "management_url": None})
    only_old = Router("stock")
    only_old.event(SoldV1, retry=RetryPolicy(attempts=2, first_delay=1))(on_sold_v1)
    sold.clear()
    async with Bus("stock", settings=settings) as service, service.serving(only_old):
        await asyncio.wait_for(sold.wait(), 40)
    assert OLD not in {each.queue for each in await bound(place) if each.exchange == "bus.events"}


async def bound(place: Place) -> frozenset[Binding]:
    return await queue_bindings(place.settings)


async def test_only_an_old_work_queue_can_be_named(place: Place) -> None:
    with pytest.raises(NotFound, match=f"queue '{NEW}' is not an old work queue.*{OLD}"):
        await pruned(place, told=[NEW])


# --- The deletion ---

KINDS: Mapping[str, FieldTable] = {"quorum": {"x-queue-type": "quorum"}, "classic": {}}


async def take(_message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Take a message."""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_queue_with_a_message_or_a_consumer_is_not_deleted(place: Place, kind: str) -> None:
    async with (
        await place.connect() as connection,
        connection.channel() as channel,
        open_admin_session(place.settings) as session,
    ):
        queue = await channel.declare_queue("q", durable=True, arguments=KINDS[kind])
        await channel.default_exchange.publish(aio_pika.Message(b"{}"), "q")
        assert not await session.delete_idle("q", is_quorum=kind == "quorum")
        tag = await queue.consume(take, no_ack=True)
        assert not await session.delete_idle("q", is_quorum=kind == "quorum")
        await queue.cancel(tag)
        assert await session.delete_idle("q", is_quorum=kind == "quorum", if_empty=False)
        assert "q" not in await queues(place)
        assert await session.delete_idle("q", is_quorum=kind == "quorum")


async def test_a_message_that_arrives_after_the_last_check_is_reported(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def see_nothing(*_arguments: object) -> QueueDepth:
        return QueueDepth()

    await publish(place, "bus.events", "shop.sold.v1")
    monkeypatch.setattr("bus.transports.rabbitmq.delete.depth_by", see_nothing)
    async with open_admin_session(place.settings) as session:
        with pytest.raises(DataLoss, match=f"{OLD} received 1 messages in the moment"):
            await session.delete_idle(OLD, is_quorum=True)


async def test_an_exchange_with_a_binding_is_not_deleted(place: Place) -> None:
    async with open_admin_session(place.settings) as session:
        assert not await session.delete_exchange("stock.retry.5s")
        await session.delete("stock.retry.5s", if_empty=False)
        assert await session.delete_exchange("stock.retry.5s")


# --- The command ---


async def test_the_command_lists_old_queues_with_the_exit_code_2(place: Place) -> None:
    shown, told, blind = await asyncio.gather(
        bus("topology", "prune", ROUTER, "--dry-run", **place.environment),
        bus("topology", "prune", ROUTER, "--dry-run", "--json", **place.environment),
        bus(
            "topology",
            "prune",
            ROUTER,
            **{**place.environment, "BUS_MANAGEMENT_URL": "http://127.0.0.1:1"},
        ),
    )
    assert (shown.code, told.code, blind.code) == (2, 2, 69)
    assert f"would unbind {OLD} from bus.events by shop.sold.v1\n" in shown.out
    assert f"would delete queue {OLD}.dead\n" in shown.out
    result = json.loads(told.out)
    assert {each["name"] for each in result["deleted"]} == GONE
    assert (result["clean"], result["dry_run"], result["left"]) == (False, True, [])
    assert "Set BUS_MANAGEMENT_URL to the address of the API." in blind.err
    assert len(blind.err.splitlines()) == 1
