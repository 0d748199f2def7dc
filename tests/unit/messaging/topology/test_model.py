from itertools import permutations

import pytest

from bus.contracts.contract import Catalog, Event, contract, contract_of
from bus.contracts.names import MAX_NAME_LENGTH, MAX_PART_LENGTH, MAX_VERSION
from bus.contracts.retry_policy import MAX_DELAY_SECONDS, RetryPolicy
from bus.errors import ContractError
from bus.messaging.settlement import distinct_delays
from bus.messaging.topology.addresses import (
    Address,
    address_of,
    dead_letter_address,
    reply_address,
    retry_address,
    update_address,
)
from bus.messaging.topology.declarations import (
    BASE_EXCHANGES,
    event_topology,
    job_topology,
    reply_topology,
    request_topology,
)
from bus.messaging.topology.model import Binding, Queue, Topology, merge
from bus.messaging.topology.names import RETRY_DELAYS, dead_letter_queue, retry_delay_for
from bus.runtime.router import Router
from tests.unit.ledger import Add, BooksClosed, CloseBooks

DEAD_LETTERING = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
DEAD_QUEUE = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
ADD, CLOSE, CLOSED = contract_of(Add), contract_of(CloseBooks), contract_of(BooksClosed)


def queues(topology: Topology) -> dict[str, Queue]:
    return {queue.name: queue for queue in topology.queues}


def exchanges(topology: Topology) -> dict[str, tuple[str, dict[str, str | int]]]:
    return {
        exchange.name: (exchange.kind, dict(exchange.arguments)) for exchange in topology.exchanges
    }


def test_the_base_is_six_exchanges() -> None:
    names = ("bus.requests", "bus.jobs", "bus.events", "bus.replies", "bus.updates", "bus.dead")
    assert exchanges(BASE_EXCHANGES) == {name: ("topic", {}) for name in names}, (
        "only topic exchanges obey topic permissions"
    )


@pytest.mark.parametrize(("quorum", "kind"), [(False, {}), (True, {"x-queue-type": "quorum"})])
def test_an_operation_has_a_queue_that_vanishes_with_its_servers(
    quorum: bool, kind: dict[str, str]
) -> None:
    topology = request_topology(ADD, quorum=quorum)
    assert topology.queues == (
        Queue(
            name="ledger.requests.add.v1", role="requests", arguments={**kind, "x-expires": 60_000}
        ),
    )
    assert topology.bindings == (
        Binding(
            exchange="bus.requests", queue="ledger.requests.add.v1", routing_key="ledger.add.v1"
        ),
    )


def test_a_job_has_a_work_queue_dead_letters_tiers_and_a_way_back() -> None:
    topology = job_topology(CLOSE, tiers=["1s", "5s"])
    work, returned = (
        "ledger.jobs.close.v1",
        {**DEAD_LETTERING, "x-dead-letter-exchange": "ledger.return"},
    )
    assert {name: (queue.role, queue.arguments) for name, queue in queues(topology).items()} == {
        work: (
            "jobs",
            {
                **DEAD_LETTERING,
                "x-dead-letter-exchange": "bus.dead",
                "x-dead-letter-routing-key": work,
                "x-delivery-limit": 100,
            },
        ),
        f"{work}.dead": ("dead", DEAD_QUEUE),
        "ledger.unroutable.dead": ("dead", DEAD_QUEUE),
        "ledger.retry.1s": ("retry", {**returned, "x-message-ttl": 1_000}),
        "ledger.retry.5s": ("retry", {**returned, "x-message-ttl": 5_000}),
    }
    assert exchanges(topology) == {
        **exchanges(BASE_EXCHANGES),
        "ledger.unroutable.dead": ("fanout", {}),
        "ledger.return": ("direct", {"alternate-exchange": "ledger.unroutable.dead"}),
        "ledger.retry.1s": ("fanout", {}),
        "ledger.retry.5s": ("fanout", {}),
    }
    assert set(topology.bindings) == {
        Binding(exchange="bus.jobs", queue=work, routing_key="ledger.close.v1"),
        Binding(exchange="ledger.return", queue=work, routing_key=work),
        Binding(exchange="bus.dead", queue=f"{work}.dead", routing_key=work),
        Binding(exchange="ledger.unroutable.dead", queue="ledger.unroutable.dead"),
        Binding(exchange="ledger.retry.1s", queue="ledger.retry.1s"),
        Binding(exchange="ledger.retry.5s", queue="ledger.retry.5s"),
    }


def test_a_subscription_has_a_queue_and_tiers_of_its_subscriber() -> None:
    topology = event_topology("archive", CLOSED, "index", tiers=["1s"])
    work = "archive.events.ledger.closed.v1.index"
    assert queues(topology)[work].role == "events"
    assert (
        Binding(exchange="bus.events", queue=work, routing_key="ledger.closed.v1")
        in topology.bindings
    )
    assert {"archive.retry.1s", "archive.return", f"{work}.dead"} <= queues(
        topology
    ).keys() | exchanges(topology).keys()
    assert "archive.events.ledger.closed.v1" in queues(
        event_topology("archive", CLOSED, None, tiers=[])
    )


def test_replies_and_updates_share_an_exclusive_queue() -> None:
    topology = reply_topology("ledger", "host-1")
    queue = "ledger.replies.host-1"
    assert topology.queues == (Queue(name=queue, role="replies", durable=False, exclusive=True),)
    assert [(binding.exchange, binding.routing_key) for binding in topology.bindings] == [
        ("bus.replies", queue),
        ("bus.updates", queue),
    ]


def test_merged_holds_each_value_once_and_the_base_first() -> None:
    parts = [
        job_topology(CLOSE, tiers=["1s"]),
        event_topology("ledger", CLOSED, None, tiers=["1s"]),
        request_topology(ADD),
    ]
    for some in permutations(parts):
        whole = merge(some)
        for values in (whole.exchanges, whole.queues, whole.bindings):
            assert len(values) == len(set(map(repr, values)))
        assert whole.exchanges[:6] == BASE_EXCHANGES.exchanges
        assert len(whole.queues) == 7


@pytest.mark.parametrize(
    ("delay", "tier"),
    [
        (0, "1s"),
        (1, "1s"),
        (1.01, "5s"),
        (5, "5s"),
        (25, "30s"),
        (125, "10m"),
        (3600, "1h"),
        (3601, "6h"),
        (6 * 3600, "6h"),
        (86_400, "24h"),
    ],
)
def test_a_delay_is_rounded_up_to_a_tier(delay: float, tier: str) -> None:
    assert retry_delay_for(delay) == tier


def test_a_wait_of_a_day_is_a_day() -> None:
    policy = RetryPolicy(delays=(86_400,))
    (delay,) = distinct_delays(policy)
    assert RETRY_DELAYS[retry_delay_for(delay)] == 86_400


def test_the_longest_wait_of_a_policy_is_that_of_the_longest_tier() -> None:
    assert max(RETRY_DELAYS.values()) == MAX_DELAY_SECONDS


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (
            address_of("request", "a.b.v1"),
            Address(exchange="bus.requests", routing_key="a.b.v1", confirmed=False),
        ),
        (address_of("job", "a.b.v1"), Address(exchange="bus.jobs", routing_key="a.b.v1")),
        (
            address_of("event", "a.b.v1"),
            Address(exchange="bus.events", routing_key="a.b.v1", mandatory=False),
        ),
        (
            reply_address("a.replies.1"),
            Address(exchange="bus.replies", routing_key="a.replies.1", confirmed=False),
        ),
        (
            reply_address("amq.rabbitmq.reply-to.x"),
            Address(exchange="", routing_key="amq.rabbitmq.reply-to.x", confirmed=False),
        ),
        (update_address("q", mandatory=True), Address(exchange="bus.updates", routing_key="q")),
        (
            update_address("q", mandatory=False),
            Address(exchange="bus.updates", routing_key="q", mandatory=False),
        ),
        (
            retry_address("a", "5s", "a.jobs.b.v1"),
            Address(exchange="a.retry.5s", routing_key="a.jobs.b.v1"),
        ),
        (
            dead_letter_address("a.jobs.b.v1"),
            Address(exchange="bus.dead", routing_key="a.jobs.b.v1"),
        ),
    ],
)
def test_every_message_has_an_address(address: Address, expected: Address) -> None:
    assert address == expected


def test_the_longest_names_fit_an_amqp_short_string() -> None:
    class Longest(Event): ...

    name = f"{'s' * MAX_PART_LENGTH}.{'e' * (MAX_NAME_LENGTH - MAX_PART_LENGTH - 1)}"
    contract(name, version=MAX_VERSION, catalog=Catalog())(Longest)
    router = Router("r" * MAX_PART_LENGTH)

    @router.event(Longest, subscription="s" * MAX_PART_LENGTH, retry=RetryPolicy(attempts=20))
    async def index(event: Longest) -> None: ...

    ((queue, topology),) = router.topology().values()
    names = [
        *queues(topology),
        *exchanges(topology),
        *(each.routing_key for each in topology.bindings),
        dead_letter_queue(queue.name),
    ]
    names += queues(reply_topology("r" * MAX_PART_LENGTH, "i" * 60))
    assert max(map(len, names)) < 255


@pytest.mark.parametrize(
    "name", ["r" * (MAX_PART_LENGTH + 1), "a.b", "Ledger", "", "bus", "1a", "a b", "a*"]
)
def test_what_would_not_fit_a_queues_name_is_no_services_name(name: str) -> None:
    with pytest.raises(ContractError, match="is not a valid service name"):
        Router(name)


@pytest.mark.parametrize("subscription", ["", "s" * (MAX_PART_LENGTH + 1), "a.dead", "#", "dead"])
def test_what_would_not_fit_a_queues_name_is_no_subscription(subscription: str) -> None:
    with pytest.raises(ContractError, match="subscription"):
        Router("archive").event(BooksClosed, subscription=subscription)
