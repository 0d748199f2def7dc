"""Tests of the bindings of a tap."""

from collections.abc import Collection

import pytest

from bus.contracts.contract import Kind
from bus.errors import FailedPrecondition
from bus.messaging.topology.model import Binding
from bus.operations.tap_bindings import check_not_tapped, served_keys

BINDINGS = [
    Binding(exchange="bus.jobs", queue="library.jobs.scan.v1", routing_key="library.scan.v1"),
    Binding(exchange="bus.jobs", queue="bus.watch.1", routing_key="library.gone.v1"),
    Binding(exchange="bus.jobs", queue="amq.gen-x", routing_key="#"),
    Binding(exchange="library.return", queue="library.jobs.scan.v1", routing_key="library"),
    Binding(
        exchange="bus.requests", queue="library.requests.find.v1", routing_key="library.find.v1"
    ),
    Binding(exchange="bus.events", queue="stock.events.shop.sold.v1", routing_key="shop.sold.v1"),
]
SCAN, FIND = ("bus.jobs", "library.scan.v1"), ("bus.requests", "library.find.v1")


@pytest.mark.parametrize(
    ("kinds", "pattern", "keys"),
    [
        (("request", "job", "event"), "#", {SCAN, FIND}),
        (("job",), "#", {SCAN}),
        (("event",), "#", set()),
        (("request", "job"), "library.scan.#", {SCAN}),
        (("request", "job"), "shop.#", set()),
    ],
)
def test_a_tap_gets_requests_and_jobs_only_of_queues_that_exist(
    kinds: Collection[Kind], pattern: str, keys: set[tuple[str, str]]
) -> None:
    assert served_keys(BINDINGS, kinds, pattern) == keys


def test_the_queue_of_watched_jobs_must_not_be_unbound() -> None:
    check_not_tapped(["library.jobs.scan.v1", "stock.events.shop.sold.v1"], BINDINGS)
    with pytest.raises(FailedPrecondition, match="End `bus watch`"):
        check_not_tapped(["library.jobs.gone.v1"], BINDINGS)
