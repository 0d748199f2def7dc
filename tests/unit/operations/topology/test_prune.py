"""The decisions of `bus topology prune`, as tables; no broker runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bus.contracts.contract import Catalog, Event, Job, Request, contract
from bus.contracts.retry_policy import RetryPolicy
from bus.messaging.topology.model import Binding, QueueRole, Topology, merge
from bus.operations.topology.broker_state import ActualExchange, ActualQueue, BrokerState
from bus.operations.topology.old_objects import OldObjects, OldQueue, find_old
from bus.operations.topology.prune_decisions import decide, forecast
from bus.operations.topology.prune_model import (
    QUIET_SECONDS,
    UNBOUND_SECONDS,
    Observation,
    QueueObservation,
)
from bus.operations.topology.required import RequiredTopology
from bus.runtime.requirements import required_by
from bus.runtime.router import Router
from bus.settings import Settings

catalog = Catalog()


@contract("shop.sold", version=1, catalog=catalog)
class SoldV1(Event):
    pass


@contract("shop.sold", version=2, catalog=catalog)
class SoldV2(Event):
    pass


@contract("stock.count", version=1, catalog=catalog)
class Count(Job[None]):
    pass


@contract("stock.find", version=1, catalog=catalog)
class Find(Request[None]):
    pass


async def take_old(_event: SoldV1) -> None:
    pass


async def take(_event: SoldV2) -> None:
    pass


async def count(_job: Count) -> None:
    pass


async def find(_request: Find) -> None:
    pass


POLICY = RetryPolicy(attempts=2, first_delay=1)
SETTINGS = Settings(topology="verify")
OLD, NEW, JOB, ASK = (
    "stock.events.shop.sold.v1",
    "stock.events.shop.sold.v2",
    "stock.jobs.count.v1",
    "stock.requests.find.v1",
)
OLD_DEAD, JOB_DEAD, TIER, UNROUTABLE, RETURN = (
    f"{OLD}.dead",
    f"{JOB}.dead",
    "stock.retry.1s",
    "stock.unroutable.dead",
    "stock.return",
)


def stock(*, version: int = 2, name: str = "stock") -> Router:
    router = Router(name)
    if version == 1:
        router.event(SoldV1, retry=POLICY)(take_old)
        if name == "stock":
            router.job(Count, retry=POLICY)(count)
            router.request(Find)(find)
    if version in {1, 2}:
        router.event(SoldV2, retry=POLICY)(take)
    return router


def needed(*routers: Router) -> RequiredTopology:
    return required_by(routers, SETTINGS)


def holding(*topologies: Topology) -> BrokerState:
    """Return the state of a broker that has exactly these topologies."""
    topology = merge(topologies)
    return BrokerState(
        exchanges={
            each.name: ActualExchange(kind=each.kind, arguments=each.arguments)
            for each in topology.exchanges
        },
        queues={
            each.name: ActualQueue(
                kind=str(each.arguments.get("x-queue-type", "classic")), arguments=each.arguments
            )
            for each in topology.queues
        },
        bindings=frozenset(topology.bindings),
    )


EARLIER = holding(needed(stock(version=1)).topology)
CURRENT, NOTHING = needed(stock()), needed(stock(version=3))


BINDING = Binding(exchange="bus.events", queue=OLD, routing_key="shop.sold.v1")


def names(old: OldObjects) -> list[str]:
    return [*(each.name for each in old.queues), *(each.name for each in old.exchanges)]


def idle(state: BrokerState, **changes: dict[str, Any]) -> Observation:
    """Return the observation of empty queues, which have been idle for long.

    A change is named like the constant that has the queue's name.
    """
    seen = {}
    for name in state.queues:
        own = frozenset(each for each in state.bindings if each.queue == name)
        seen[name] = QueueObservation(bindings=own, empty_for=100, quiet_for=100)
    for constant, change in changes.items():
        name = globals()[constant]
        busy = change.get("messages") or change.get("consumers")
        seen[name] = replace(seen[name], **({"quiet_for": 0} if busy else {}) | change)
    return seen


def unbound(state: BrokerState, **changes: dict[str, Any]) -> Observation:
    """Return the observation of idle queues that no source is bound to any more."""
    sources = {"bus.events", "bus.jobs", TIER}
    return {
        name: replace(
            each,
            unbound_for=each.unbound_for or each.quiet_for,
            bindings=frozenset(own for own in each.bindings if own.exchange not in sources),
        )
        for name, each in idle(state, **changes).items()
    }


def without(seen: Observation, *gone: str) -> Observation:
    return {name: each for name, each in seen.items() if name not in gone}


def steps(old: OldObjects, seen: Observation, *told: str) -> list[str]:
    return [f"{each.action} {each.name}" for each in decide(old, seen, told) if not each.follows]


def reason(old: OldObjects, seen: Observation, name: str, *told: str) -> str:
    return next(
        f"{each.action}: {each.detail}" for each in decide(old, seen, told) if each.name == name
    )


# --- Old objects ---


def test_old_is_what_the_bus_made_for_these_services_and_their_routers_do_not_declare() -> None:
    assert names(find_old(CURRENT, EARLIER)) == [OLD, JOB, ASK, OLD_DEAD, JOB_DEAD]
    assert names(find_old(needed(stock(version=1)), EARLIER)) == []


def test_a_service_without_work_queues_needs_no_return_path_either() -> None:
    assert names(find_old(NOTHING, EARLIER)) == [
        *(OLD, NEW, JOB, ASK, OLD_DEAD, f"{NEW}.dead", JOB_DEAD),
        *("stock.retry.1s", "stock.retry.30s", UNROUTABLE),
        *("stock.retry.1s", "stock.retry.30s", RETURN, UNROUTABLE),
    ]


def test_the_queues_of_services_with_similar_names_are_not_touched() -> None:
    others = [needed(stock(version=1, name=name)).topology for name in ("stock-2", "stocks", "sto")]
    state = holding(needed(stock(version=1)).topology, *others)
    assert find_old(CURRENT, state) == find_old(CURRENT, EARLIER)


FOREIGN: Mapping[str, ActualQueue] = {
    "stock.jobs.pack.v1": ActualQueue(kind="classic"),
    "stock.events.shop.sold.v0": ActualQueue(kind="quorum"),
    "stock.requests.open.v1": ActualQueue(kind="classic"),
    "stock.jobs.send.v1": ActualQueue(
        kind="quorum", arguments={"x-dead-letter-exchange": "bus.dead"}
    ),
    "stock.retry.6h": ActualQueue(kind="quorum", arguments={"x-message-ttl": 1000}),
    "stock.jobs.pack.v1.dead": ActualQueue(kind="quorum"),
}


def test_a_queue_with_such_a_name_that_the_bus_did_not_make_is_not_touched() -> None:
    state = replace(
        EARLIER,
        queues={
            **EARLIER.queues,
            **FOREIGN,
            "stock": ActualQueue(kind="classic"),
            "stock.replies.host-1": ActualQueue(kind="classic", exclusive=True, durable=False),
        },
    )
    old = find_old(CURRENT, state)
    assert old.foreign == tuple(sorted(FOREIGN))
    assert names(old) == names(find_old(CURRENT, EARLIER))


def test_a_queue_that_an_interrupted_run_has_unbound_is_still_known() -> None:
    left = frozenset(each for each in EARLIER.bindings if not each.exchange.startswith("bus.ev"))
    assert OLD in names(find_old(CURRENT, replace(EARLIER, bindings=left)))


def test_a_queue_of_an_earlier_version_with_other_arguments_is_known_by_its_binding() -> None:
    queues = {**EARLIER.queues, OLD: ActualQueue(kind="classic")}
    assert OLD in names(find_old(CURRENT, replace(EARLIER, queues=queues)))


def test_a_subscription_with_a_name_is_known_by_its_binding() -> None:
    name = f"{OLD}.index"
    state = replace(
        EARLIER,
        queues={**EARLIER.queues, name: ActualQueue(kind="quorum")},
        bindings=EARLIER.bindings
        | {Binding(exchange="bus.events", queue=name, routing_key="shop.sold.v1")},
    )
    assert name in names(find_old(CURRENT, state))


def test_a_request_queue_that_expires_is_left_to_its_expiry() -> None:
    settings = Settings(topology="declare")
    state = holding(required_by([stock(version=1)], settings).topology)
    assert ASK in state.queues
    assert ASK not in names(find_old(CURRENT, state))


# --- Decisions ---

FOUND = find_old(CURRENT, EARLIER)
ALL = find_old(NOTHING, EARLIER)


def test_first_work_queues_are_unbound_and_request_queues_deleted() -> None:
    assert steps(FOUND, idle(EARLIER)) == [f"unbind {OLD}", f"unbind {JOB}", f"delete {ASK}"]
    (bindings,) = [each.bindings for each in decide(FOUND, idle(EARLIER)) if each.name == OLD]
    assert bindings == (Binding(exchange="bus.events", queue=OLD, routing_key="shop.sold.v1"),)


def test_the_return_path_stays_bound_until_the_queue_is_deleted() -> None:
    (bindings,) = [each.bindings for each in decide(FOUND, idle(EARLIER)) if each.name == JOB]
    assert {each.exchange for each in bindings} == {"bus.jobs"}


def test_then_a_quiet_work_queue_is_deleted_and_after_it_its_dead_letter_queue() -> None:
    seen = without(unbound(EARLIER), JOB, JOB_DEAD, ASK)
    assert steps(FOUND, seen) == [f"delete {OLD}"]
    assert reason(FOUND, seen, OLD_DEAD) == f"wait: queue {OLD} must be deleted first"
    assert steps(FOUND, without(seen, OLD)) == [f"delete {OLD_DEAD}"]
    assert steps(FOUND, without(seen, OLD, OLD_DEAD)) == []


def test_the_forecast_has_all_steps_of_a_run_in_their_order() -> None:
    seen = idle(EARLIER)
    assert [f"{each.action} {each.what} {each.name}" for each in forecast(ALL, seen)] == [
        *(f"unbind queue {OLD}", f"unbind queue {NEW}", f"unbind queue {JOB}"),
        f"delete queue {ASK}",
        *(f"delete queue {OLD}", f"delete queue {NEW}", f"delete queue {JOB}"),
        *(f"delete queue {OLD_DEAD}", f"delete queue {NEW}.dead", f"delete queue {JOB_DEAD}"),
        *("unbind queue stock.retry.1s", "unbind queue stock.retry.30s"),
        *("delete queue stock.retry.1s", "delete queue stock.retry.30s"),
        *(f"delete queue {UNROUTABLE}", "delete exchange stock.retry.1s"),
        "delete exchange stock.retry.30s",
        *(f"delete exchange {RETURN}", f"delete exchange {UNROUTABLE}"),
    ]


WAITS: Mapping[str, tuple[Observation, str]] = {
    "messages": (
        unbound(EARLIER, OLD={"messages": 2}),
        "2 messages must be handled by the earlier code",
    ),
    "not yet quiet": (
        unbound(EARLIER, OLD={"quiet_for": QUIET_SECONDS - 0.1}),
        "no message may be in flight for 6 s",
    ),
    "retries": (
        unbound(EARLIER, OLD={"quiet_for": 6.5}, TIER={"messages": 3, "empty_for": 0}),
        f"3 messages in {TIER} can return to it within 1s",
    ),
    "a tier that has just become empty": (
        unbound(EARLIER, OLD={"quiet_for": 6.5}, TIER={"empty_for": 1}),
        "no message may be in flight for 6 s",
    ),
    "a binding that was removed just now": (
        unbound(EARLIER, OLD={"unbound_for": UNBOUND_SECONDS - 0.1}),
        "no worker may start and no message may arrive for 2 s",
    ),
}


@pytest.mark.parametrize("name", WAITS)
def test_an_unbound_queue_is_not_deleted_while_a_message_can_come(name: str) -> None:
    seen, why = WAITS[name]
    assert reason(FOUND, seen, OLD) == f"wait: {why}"


def test_a_tier_that_other_queues_keep_busy_delays_a_deletion_by_its_own_delay_only() -> None:
    seen = unbound(EARLIER, OLD={"quiet_for": 7}, TIER={"messages": 3, "empty_for": 0})
    assert reason(FOUND, seen, OLD) == "delete: "


KEEPS: Mapping[str, tuple[Observation, str, str]] = {
    "a work queue with consumers": (
        idle(EARLIER, OLD={"consumers": 2, "messages": 1}),
        OLD,
        (
            "it has 2 consumers, so a worker with the earlier code runs. Stop this worker, or use "
            f"--even-if-used {OLD}."
        ),
    ),
    "a work queue with messages": (
        idle(EARLIER, JOB={"messages": 1}),
        JOB,
        (
            "it holds 1 message, so services may still send this version. Change these services, "
            "let a worker with the earlier code handle the messages, or use "
            f"--even-if-used {JOB}."
        ),
    ),
    "a work queue with dead letters": (
        idle(EARLIER, OLD_DEAD={"messages": 1}),
        OLD,
        (
            "1 dead letter of it must be replayed or deleted first. "
            f"List them with `bus dead list --queue {OLD}`."
        ),
    ),
    "dead letters without their work queue": (
        without(idle(EARLIER, OLD_DEAD={"messages": 4}), OLD),
        OLD_DEAD,
        (
            "its 4 dead letters must be replayed or deleted first. "
            f"List them with `bus dead list --queue {OLD}`."
        ),
    ),
    "unroutable messages": (
        idle(EARLIER, UNROUTABLE={"messages": 1}),
        UNROUTABLE,
        (
            "its 1 dead letter must be replayed or deleted first. "
            "List them with `bus dead list --service stock`."
        ),
    ),
    "requests that still come": (
        idle(EARLIER, ASK={"messages": 1}),
        ASK,
        (
            "it holds 1 request, so callers still send this version. Change the callers, or use "
            f"--even-if-used {ASK}."
        ),
    ),
    "a request queue with a consumer": (
        idle(EARLIER, ASK={"consumers": 1}),
        ASK,
        (
            "it has 1 consumer, so a worker with the earlier code runs. Stop this worker, or use "
            f"--even-if-used {ASK}."
        ),
    ),
    "a queue that was bound again": (
        idle(EARLIER, OLD={"removed": (BINDING,)}),
        OLD,
        (
            "a worker with the earlier code has bound it again. Stop this worker, and run the "
            "command again."
        ),
    ),
    "another program's binding": (
        idle(EARLIER, OLD={"bindings": frozenset([Binding(exchange="stock.all", queue=OLD)])}),
        OLD,
        (
            "it is bound to the exchange stock.all, but not by the bus. Remove this binding, if no "
            "program needs it."
        ),
    ),
}


@pytest.mark.parametrize("name", KEEPS)
def test_a_queue_that_is_still_needed_is_kept_and_the_reason_has_a_remedy(name: str) -> None:
    seen, queue, why = KEEPS[name]
    assert reason(ALL, seen, queue) == f"keep: {why}"


@pytest.mark.parametrize("name", [name for name in WAITS if "binding" not in name])
def test_a_queue_stays_bound_until_no_message_can_come(name: str) -> None:
    seen = dict(WAITS[name][0])
    seen[OLD] = replace(seen[OLD], bindings=frozenset([BINDING]))
    assert "unbind" not in {each.action for each in decide(FOUND, seen) if each.name == OLD}


def test_a_message_that_arrives_after_the_removal_of_a_binding_brings_the_binding_back() -> None:
    seen = unbound(EARLIER, OLD={"removed": (BINDING,), "messages": 1})
    (step,) = [each for each in decide(FOUND, seen) if each.name == OLD]
    assert (step.action, step.bindings) == ("bind", (BINDING,))
    assert reason(FOUND, seen, OLD, OLD).startswith("wait: 1 message must be handled")


@pytest.mark.parametrize("name", [OLD, f"{OLD}.index", JOB])
def test_a_worker_of_a_queue_that_a_killed_run_has_unbound_gets_its_binding_back(name: str) -> None:
    key = "stock.count.v1" if name == JOB else "shop.sold.v1"
    binding = Binding(exchange="bus.jobs" if name == JOB else "bus.events", queue=name)
    queue = OldQueue(name=name, service="stock", role=_role(name), is_quorum=True)
    seen = {name: QueueObservation(consumers=1)}
    (step,) = decide(OldObjects(queues=(queue,)), seen)
    assert (step.action, step.bindings) == ("bind", (replace(binding, routing_key=key),))


def _role(name: str) -> QueueRole:
    return "jobs" if ".jobs." in name else "events"


def test_a_tier_that_a_killed_run_has_unbound_is_bound_again_while_a_queue_needs_it() -> None:
    state = holding(needed(stock(version=1)).topology)
    seen = idle(state, OLD={"consumers": 1}, TIER={"bindings": frozenset()})
    (step,) = [each for each in decide(ALL, seen) if (each.what, each.name) == ("queue", TIER)]
    assert (step.action, step.bindings) == ("bind", (Binding(exchange=TIER, queue=TIER),))


def test_a_worker_that_started_while_its_queue_was_unbound_gets_its_binding_back() -> None:
    seen = unbound(EARLIER, OLD={"removed": (BINDING,), "consumers": 1})
    (step,) = [each for each in decide(FOUND, seen) if each.name == OLD]
    assert (step.action, step.bindings) == ("bind", (BINDING,))
    assert reason(FOUND, seen, OLD, OLD) == "wait: 1 consumer must stop"


def test_an_old_tier_that_was_bound_again_is_kept() -> None:
    state = _state_of_tier()
    removed = Binding(exchange=TIER, queue=TIER)
    assert reason(find_old(NOTHING, state), idle(state, TIER={"removed": (removed,)}), TIER) == (
        "keep: a worker with the earlier code has bound it again. Stop this worker, and run the "
        "command again."
    )


def test_a_queue_with_an_interrupted_migration_is_kept() -> None:
    queues = {**EARLIER.queues, f"bus.holding.{OLD}": ActualQueue(kind="quorum")}
    old = find_old(CURRENT, replace(EARLIER, queues=queues))
    seen = idle(EARLIER)
    assert reason(old, seen, OLD).startswith("keep: its migration was interrupted")
    assert reason(old, without(seen, OLD), OLD_DEAD).startswith("keep: its migration was")


def test_the_objects_that_a_kept_queue_needs_are_kept_with_it() -> None:
    kept = {
        (each.what, each.name): each.follows
        for each in decide(ALL, idle(EARLIER, JOB={"consumers": 1}))
        if each.action == "keep"
    }
    assert kept == {
        ("queue", JOB): "",
        ("queue", JOB_DEAD): JOB,
        ("queue", TIER): JOB,
        ("queue", "stock.retry.30s"): JOB,
        ("queue", UNROUTABLE): JOB,
        ("exchange", TIER): TIER,
        ("exchange", "stock.retry.30s"): "stock.retry.30s",
        ("exchange", RETURN): JOB,
        ("exchange", UNROUTABLE): UNROUTABLE,
    }


TOLD: Mapping[str, tuple[Observation, str, str]] = {
    "consumers do not keep it bound": (
        idle(EARLIER, OLD={"consumers": 1, "messages": 1}),
        OLD,
        "unbind: ",
    ),
    "its consumers are awaited": (
        unbound(EARLIER, OLD={"consumers": 1}),
        OLD,
        "wait: 1 consumer must stop",
    ),
    "its messages are awaited": (
        unbound(EARLIER, OLD={"messages": 1}),
        OLD,
        "wait: 1 message must be handled by the earlier code",
    ),
    "dead letters keep it": (
        idle(EARLIER, OLD_DEAD={"messages": 1}),
        OLD,
        (
            "keep: 1 dead letter of it must be replayed or deleted first. "
            f"List them with `bus dead list --queue {OLD}`."
        ),
    ),
    "requests do not keep their queue": (idle(EARLIER, ASK={"messages": 1}), ASK, "delete: "),
    "consumers of requests are awaited": (
        idle(EARLIER, ASK={"consumers": 1}),
        ASK,
        "wait: 1 consumer must stop",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_with_even_if_used_a_queue_is_unbound_and_loses_no_message(name: str) -> None:
    seen, queue, step = TOLD[name]
    assert reason(FOUND, seen, queue, queue) == step


def test_an_old_tier_is_unbound_when_it_is_empty_and_no_old_work_queue_needs_it() -> None:
    tier = find_old(NOTHING, _state_of_tier())
    seen = idle(_state_of_tier())
    assert steps(tier, seen) == [f"unbind {TIER}"]
    assert steps(tier, unbound(_state_of_tier())) == [f"delete {TIER}"]
    assert steps(tier, without(seen, TIER)) == [f"delete {TIER}"], "the exchange"
    assert reason(tier, idle(_state_of_tier(), TIER={"messages": 2}), TIER) == (
        "wait: 2 messages must leave it, within 1s"
    )


def _only_tier() -> Topology:
    topology = needed(stock(version=1)).topology
    return Topology(
        exchanges=tuple(each for each in topology.exchanges if each.name == TIER),
        queues=tuple(each for each in topology.queues if each.name == TIER),
        bindings=tuple(each for each in topology.bindings if each.queue == TIER),
    )


def _state_of_tier() -> BrokerState:
    return holding(_only_tier())
