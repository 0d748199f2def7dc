"""Tests of the bindings of a tap."""

from collections.abc import Collection

import pytest

from bus.contracts.contract import Kind
from bus.messaging.topology.model import Binding
from bus.operations.tap_bindings import served_keys

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
FIND = ("bus.requests", "library.find.v1")


@pytest.mark.parametrize(
    ("kinds", "pattern", "keys"),
    [
        (("request", "event"), "#", {FIND}),
        (("event",), "#", set()),
        (("request", "job"), "#", {FIND}),
        (("request",), "library.find.#", {FIND}),
        (("request",), "shop.#", set()),
    ],
)
def test_a_tap_gets_requests_only_of_queues_that_exist_and_no_jobs(
    kinds: Collection[Kind], pattern: str, keys: set[tuple[str, str]]
) -> None:
    assert served_keys(BINDINGS, kinds, pattern) == keys
