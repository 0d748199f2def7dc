"""The comparison of the required topology with the broker's, as a table; no broker runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import NotFound
from bus.messaging.topology.declarations import reply_topology
from bus.messaging.topology.model import Binding, Queue, Topology, merge
from bus.operations.topology.broker_state import (
    ActualExchange,
    ActualQueue,
    BrokerState,
    effective_arguments,
)
from bus.operations.topology.definitions import definitions
from bus.operations.topology.diff import Difference, Plan, diff
from bus.operations.topology.policies import policy_of
from bus.operations.topology.required import RequiredTopology
from bus.runtime.requirements import required_by
from bus.runtime.router import Router
from bus.settings import Settings
from tests.unit.ledger import Add, BooksClosed, CloseBooks, Total

SETTINGS = Settings()
WORK, TIER, DEAD, REQUESTS = (
    "ledger.jobs.close.v1",
    "ledger.retry.1s",
    "ledger.jobs.close.v1.dead",
    "ledger.requests.add.v1",
)


def ledger() -> Router:
    router = Router("ledger")

    @router.request(Add)
    async def add(_request: Add) -> Total:
        return Total(total=1)

    @router.job(CloseBooks, retry=RetryPolicy(attempts=3, first_delay=1, factor=1))
    async def close(_job: CloseBooks) -> Total:
        return Total(total=1)

    @router.event(BooksClosed)
    async def on_closed(_event: BooksClosed) -> None:
        pass

    return router


WANTED = required_by([ledger()], SETTINGS)


def holding(topology: Topology) -> BrokerState:
    """Return the state of a broker that has exactly this topology."""
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


RIGHT = holding(WANTED.topology)


def with_queue(name: str, **changes: Any) -> BrokerState:
    return replace(RIGHT, queues={**RIGHT.queues, name: replace(RIGHT.queues[name], **changes)})


def with_arguments(name: str, **changes: object) -> BrokerState:
    """Return the right state with other arguments of a queue; None removes an argument."""
    changed = {
        **RIGHT.queues[name].arguments,
        **{f"x-{key.replace('_', '-')}": value for key, value in changes.items()},
    }
    return with_queue(
        name, arguments={key: value for key, value in changed.items() if value is not None}
    )


def with_policy(name: str, **policy: object) -> BrokerState:
    return with_queue(name, policy={key.replace("_", "-"): value for key, value in policy.items()})


def without_binding(exchange: str, queue: str) -> BrokerState:
    return replace(
        RIGHT,
        bindings=frozenset(
            each for each in RIGHT.bindings if (each.exchange, each.queue) != (exchange, queue)
        ),
    )


def lines(plan: Plan) -> list[str]:
    return [str(each) for each in plan.differences]


def test_a_broker_that_has_all_needs_nothing() -> None:
    plan = diff(WANTED, RIGHT)
    assert (plan.differences, plan.missing, plan.clean) == ((), Topology(), True)


def test_an_empty_broker_misses_all_but_what_expires_by_itself() -> None:
    plan = diff(WANTED, BrokerState(exchanges={}, queues={}, bindings=frozenset()))
    assert plan.missing.exchanges == WANTED.topology.exchanges
    assert {each.name for each in WANTED.topology.queues} - {
        each.name for each in plan.missing.queues
    } == {REQUESTS}
    assert [each for each in WANTED.topology.bindings if each not in plan.missing.bindings] == [
        Binding(exchange="bus.requests", queue=REQUESTS, routing_key="ledger.add.v1")
    ]
    assert not plan.clean


def test_where_others_manage_the_broker_request_queues_stay_and_are_missed() -> None:
    wanted = required_by([ledger()], Settings(topology="verify"))
    assert wanted.queue(REQUESTS).arguments == {}
    assert REQUESTS in {
        each.name
        for each in diff(
            wanted, BrokerState(exchanges={}, queues={}, bindings=frozenset())
        ).missing.queues
    }


MIS_SET: Mapping[str, tuple[BrokerState, str]] = {
    "no dead-letter exchange": (
        with_arguments(WORK, dead_letter_exchange=None),
        "x-dead-letter-exchange is not set, needed bus.dead",
    ),
    "dead letters elsewhere": (
        with_arguments(WORK, dead_letter_exchange="amq.direct"),
        "x-dead-letter-exchange is amq.direct",
    ),
    "no dead-letter routing key": (
        with_arguments(WORK, dead_letter_routing_key=None),
        "x-dead-letter-routing-key is not set",
    ),
    "no dead-letter route": (
        without_binding("bus.dead", DEAD),
        f"missing binding bus.dead -> {DEAD} by {WORK}",
    ),
    "no strategy": (
        with_arguments(WORK, dead_letter_strategy=None),
        "x-dead-letter-strategy is not set, needed at-least-once",
    ),
    "at most once": (
        with_arguments(WORK, dead_letter_strategy="at-most-once"),
        "x-dead-letter-strategy is at-most-once",
    ),
    "at least once without reject-publish": (
        with_arguments(WORK, overflow=None),
        "x-overflow is not set, needed reject-publish",
    ),
    "drops its head": (
        with_arguments(WORK, overflow="drop-head"),
        "x-overflow is drop-head, needed reject-publish",
    ),
    "a length limit": (with_arguments(WORK, max_length=10), "x-max-length is 10, needed not set"),
    "a length limit by policy": (
        with_policy(WORK, max_length=10),
        "a policy sets max-length to 10",
    ),
    "a byte limit by policy": (
        with_policy(WORK, max_length_bytes=10),
        "a policy sets max-length-bytes to 10",
    ),
    "no delivery limit of its own": (
        with_arguments(WORK, delivery_limit=None),
        "x-delivery-limit is not set, needed 100",
    ),
    "a delivery limit below the attempts": (
        with_policy(WORK, delivery_limit=2),
        "the delivery limit is 2, below the 3 attempts",
    ),
    "a work queue that expires": (
        with_policy(WORK, expires=1000),
        "a policy sets expires to 1000: the broker deletes the queue",
    ),
    "a classic work queue": (with_queue(WORK, kind="classic"), "type is classic, needed quorum"),
    "a queue that a restart loses": (
        with_queue(WORK, durable=False),
        "durable is false, needed true",
    ),
    "a tier that goes nowhere": (
        with_arguments(TIER, dead_letter_exchange=None),
        "x-dead-letter-exchange is not set",
    ),
    "a tier that is early": (
        with_policy(TIER, message_ttl=5),
        "a policy sets message-ttl to 5: retries start too early",
    ),
    "a tier without its return path": (
        without_binding("ledger.return", WORK),
        f"missing binding ledger.return -> {WORK}",
    ),
    "dead letters that expire": (
        with_policy(DEAD, message_ttl=1000),
        "a policy sets message-ttl to 1000: the broker drops dead letters",
    ),
    "dead letters that overflow": (
        with_policy(DEAD, max_length=10),
        "a policy sets max-length to 10: the broker drops dead letters",
    ),
    "dead letters that browsing deletes": (
        with_policy(DEAD, delivery_limit=20),
        "a policy sets delivery-limit to 20: dead letters are deleted",
    ),
}


@pytest.mark.parametrize("name", MIS_SET)
def test_a_mis_set_topology_is_named(name: str) -> None:
    held, said = MIS_SET[name]
    plan = diff(WANTED, held)
    assert any(said in line for line in lines(plan)), lines(plan)
    assert len(plan.differences) == 1
    assert not plan.clean


TOLERABLE: Mapping[str, BrokerState] = {
    "a delivery limit of just the attempts": with_policy(WORK, delivery_limit=3),
    "a policy that the argument overrules": with_policy(
        WORK, overflow="drop-head", dead_letter_exchange="elsewhere"
    ),
    "dead letters that are refused if the queue is full": with_policy(
        DEAD, max_length=10, overflow="reject-publish"
    ),
    "a type among the arguments, as RabbitMQ 4 has it": with_arguments(
        REQUESTS, queue_type="classic"
    ),
    "another service's queue": replace(
        RIGHT, queues={**RIGHT.queues, "office.jobs.file.v1": ActualQueue(kind="classic")}
    ),
    "a queue that is not the bus's": replace(
        RIGHT, queues={**RIGHT.queues, "ledger": ActualQueue(kind="classic")}
    ),
}


@pytest.mark.parametrize("name", TOLERABLE)
def test_what_does_no_harm_is_no_difference(name: str) -> None:
    assert lines(diff(WANTED, TOLERABLE[name])) == []


def test_a_virtual_hosts_default_type_is_what_a_queue_without_one_becomes() -> None:
    quorum = with_queue(
        REQUESTS, kind="quorum", arguments={"x-expires": 60_000, "x-queue-type": "quorum"}
    )
    assert lines(diff(WANTED, quorum)) == [
        f"different queue {REQUESTS}: type is quorum, needed classic"
    ]
    assert lines(diff(WANTED, replace(quorum, default_kind="quorum"))) == []


def test_an_exchange_of_another_kind_is_different() -> None:
    held = replace(
        RIGHT,
        exchanges={**RIGHT.exchanges, "bus.jobs": ActualExchange(kind="direct", durable=False)},
    )
    assert lines(diff(WANTED, held)) == [
        "different exchange bus.jobs: type is direct, needed topic",
        "different exchange bus.jobs: durable is false, needed true",
    ]


def test_what_is_left_over_is_told_and_nothing_is_to_be_done() -> None:
    old, tier = Queue(name="ledger.jobs.close.v0", role="jobs"), "ledger.retry.1h"
    held = replace(
        RIGHT,
        exchanges={**RIGHT.exchanges, tier: ActualExchange(kind="fanout")},
        queues={
            **RIGHT.queues,
            old.name: ActualQueue(kind="quorum", messages=7),
            "ledger.replies.host-1": ActualQueue(kind="classic"),
        },
        bindings=RIGHT.bindings | {Binding(exchange="bus.jobs", queue=WORK, routing_key="#")},
    )
    plan = diff(WANTED, held)
    assert lines(plan) == [
        f"superfluous exchange {tier}",
        "superfluous queue ledger.jobs.close.v0: 7 messages",
        f"superfluous binding bus.jobs -> {WORK} by #",
    ]
    assert plan.clean


def test_a_migration_that_has_not_ended_is_told() -> None:
    held = replace(
        RIGHT, queues={**RIGHT.queues, f"bus.holding.{WORK}": ActualQueue(kind="quorum")}
    )
    (found,) = diff(WANTED, held).differences
    assert (found.verdict, found.name) == ("unfinished", WORK)


def test_a_queue_that_no_router_needs_is_named_with_those_that_they_need() -> None:
    with pytest.raises(NotFound, match=f"queue 'ledger.jobs.cloze.v1' is not required.*{WORK}"):
        WANTED.queue("ledger.jobs.cloze.v1")


def test_the_needs_of_several_services_are_one_topology() -> None:
    other = Router("office")
    other.event(BooksClosed)(ledger().endpoints["ledger.events.ledger.closed.v1"].function)
    both = required_by([ledger(), other], SETTINGS)
    assert both.services == {"ledger", "office"}
    assert {"office.events.ledger.closed.v1", WORK} <= {each.name for each in both.topology.queues}
    assert both.attempts == {
        WORK: 3,
        "ledger.events.ledger.closed.v1": 5,
        "office.events.ledger.closed.v1": 5,
    }


# --- Policies -------------------------------------------------------------------------------------


def policy(
    pattern: str, priority: int = 0, apply_to: str = "queues", **definition: object
) -> Mapping[str, Any]:
    rules = {key.replace("_", "-"): value for key, value in definition.items()}
    return {
        "name": pattern,
        "pattern": pattern,
        "priority": priority,
        "apply-to": apply_to,
        "definition": rules,
    }


@pytest.mark.parametrize(
    ("policies", "operators", "result"),
    [
        ([], [], {}),
        ([policy("^led", max_length=1)], [], {"max-length": 1}),
        ([policy("close", max_length=1)], [], {"max-length": 1}),
        ([policy("^close", max_length=1)], [], {}),
        ([policy("", 1, max_length=1), policy("", 2, expires=2)], [], {"expires": 2}),
        ([policy("", apply_to="exchanges", max_length=1)], [], {}),
        ([policy("", apply_to="all", max_length=1)], [], {"max-length": 1}),
        (
            [
                policy("", apply_to="quorum_queues", max_length=1),
                policy("", 9, apply_to="classic_queues", max_length=2),
            ],
            [],
            {"max-length": 1},
        ),
        (
            [policy("", max_length=5, overflow="drop-head")],
            [policy("", max_length=3)],
            {"max-length": 3, "overflow": "drop-head"},
        ),
        ([policy("", max_length=2)], [policy("", max_length=3)], {"max-length": 2}),
        ([policy("(", max_length=2)], [], {}),
    ],
)
def test_the_policy_that_counts(
    policies: list[Mapping[str, Any]], operators: list[Mapping[str, Any]], result: Mapping[str, Any]
) -> None:
    assert policy_of(WORK, "quorum", policies, operators) == result


def test_of_limits_the_smaller_counts_and_of_all_else_the_argument() -> None:
    queue = ActualQueue(
        kind="quorum",
        arguments={"x-delivery-limit": 100, "x-overflow": "reject-publish", "x-message-ttl": 5},
        policy={"delivery-limit": 3, "overflow": "drop-head", "message-ttl": 9, "max-length": 7},
    )
    assert effective_arguments(queue) == {
        "delivery-limit": 3,
        "overflow": "reject-publish",
        "message-ttl": 5,
        "max-length": 7,
    }


@pytest.mark.parametrize(
    ("patience", "heeded", "said"),
    [
        (
            599_000,
            False,
            [
                (
                    "unsafe queue ledger.jobs.close.v1: the consumer timeout is 599 s, "
                    "below the 600 s of its handler: "
                )
            ],
        ),
        (600_000, False, []),
        (1000, True, []),
    ],
)
def test_a_policy_that_takes_messages_back_too_soon_is_unsafe_where_consumers_have_no_say(
    patience: int, heeded: bool, said: list[str]
) -> None:
    held = replace(with_policy(WORK, consumer_timeout=patience), supports_consumer_timeout=heeded)
    found = lines(diff(WANTED, held))
    assert [line.partition("the broker delivers")[0] for line in found] == said


# --- definitions.json -----------------------------------------------------------------------------


def test_definitions_are_sorted_and_the_same_for_the_same_needs() -> None:
    topology = WANTED.topology
    turned = Topology(
        exchanges=topology.exchanges[::-1],
        queues=topology.queues[::-1],
        bindings=topology.bindings[::-1],
    )
    made = definitions(topology, vhost="office")
    assert made == definitions(turned, vhost="office")
    assert [each["name"] for each in made["queues"]] == sorted(
        each.name for each in topology.queues
    )
    assert {
        each["vhost"] for kind in ("exchanges", "queues", "bindings") for each in made[kind]
    } == {"office"}


def test_what_belongs_to_a_connection_is_in_no_file() -> None:
    made = definitions(merge([WANTED.topology, reply_topology("ledger", "host-1")]))
    assert made == definitions(WANTED.topology)


def test_a_difference_is_one_line() -> None:
    assert (
        str(Difference(verdict="missing", what="queue", name="a", detail="quorum"))
        == "missing queue a: quorum"
    )
    assert str(Difference(verdict="superfluous", what="queue", name="a")) == "superfluous queue a"


def test_wanted_holds_for_nobody_just_the_exchanges() -> None:
    nobody: RequiredTopology = required_by([], SETTINGS)
    assert (len(nobody.topology.exchanges), nobody.topology.queues, nobody.services) == (
        7,
        (),
        frozenset(),
    )


def test_the_exchange_of_the_control_channel_is_needed_unless_discovery_is_off() -> None:
    found = required_by([], SETTINGS).topology.exchanges
    without = required_by([], SETTINGS.model_copy(update={"discovery": "off"})).topology.exchanges
    assert {each.name for each in found} - {each.name for each in without} == {"bus.control"}
