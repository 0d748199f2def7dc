"""The queues that no worker of a running service consumes, as a table; no broker runs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bus.cli.queue_table import notes, report_to_json
from bus.messaging.topology.names import parse_queue_name, split_version
from bus.operations.queue_inspection import QueueReport, QueueStatus, mark_unbound
from bus.operations.unserved_queues import UnservedQueue, find_unserved
from bus.transports.rabbitmq.handshake import BrokerInfo

OLD, NEW = "stock.events.shop.sold.v1", "stock.events.shop.sold.v2"
SERVER = BrokerInfo(product="RabbitMQ", version="3.10.8", cluster="rabbit@here", platform="Erlang")


def queue(name: str, consumers: int | None = 0, ready: int = 0, **others: Any) -> QueueStatus:
    parsed = parse_queue_name(name)
    assert parsed
    status = QueueStatus(
        name=name, service=parsed.service, role=parsed.role, ready=ready, consumers=consumers
    )
    return replace(status, **others)


FOUND: Mapping[str, tuple[tuple[QueueStatus, ...], dict[str, str | None]]] = {
    "an old version of an event": ((queue(OLD), queue(NEW, 1)), {OLD: NEW}),
    "two old versions": (
        (queue(OLD), queue(NEW), queue("stock.events.shop.sold.v10", 1)),
        {OLD: "stock.events.shop.sold.v10", NEW: "stock.events.shop.sold.v10"},
    ),
    "an old version of a named subscription": (
        (queue(f"{OLD}.index"), queue(f"{NEW}.index", 1), queue(f"{NEW}.mail", 1)),
        {f"{OLD}.index": f"{NEW}.index"},
    ),
    "an old version of a job": (
        (queue("stock.jobs.count.v1"), queue("stock.jobs.count.v2", 2)),
        {"stock.jobs.count.v1": "stock.jobs.count.v2"},
    ),
    "an old version of a request": (
        (queue("stock.requests.find.v1"), queue("stock.requests.find.v2", 2)),
        {"stock.requests.find.v1": "stock.requests.find.v2"},
    ),
    "a subscription that the running service has dropped": (
        (queue(OLD), queue("stock.jobs.count.v1", 1)),
        {OLD: None},
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_queue_that_no_worker_of_a_running_service_consumes_is_found(name: str) -> None:
    queues, expected = FOUND[name]
    assert {each.name: each.newer for each in find_unserved(queues).values()} == expected


def test_a_consumed_queue_without_its_binding_is_reported_with_the_remedy() -> None:
    states = [queue(OLD, 1), queue(NEW, 1), queue("stock.jobs.count.v1"), queue("stock.retry.1s")]
    marked = mark_unbound(states, {NEW})
    assert [each.is_unbound for each in marked] == [True, False, False, False]
    assert not any(each.is_unbound for each in mark_unbound(states, None))
    report = QueueReport(server=SERVER, queues=tuple(marked), at=0)
    assert (
        f"[yellow]{OLD}: it has a consumer, but is not bound to bus.events, so no new message "
        "arrives; bind it with `bus topology apply`[/]"
    ) in list(notes(report))
    assert [each["unbound"] for each in report_to_json(report)["queues"]][:2] == [True, False]


FINE: Mapping[str, tuple[QueueStatus, ...]] = {
    "a service that is down": (queue(OLD, ready=5), queue(NEW, ready=5)),
    "both versions are consumed": (queue(OLD, 1), queue(NEW, 1)),
    "another service consumes the newer version": (
        queue(OLD),
        queue("shop.events.shop.sold.v2", 1),
    ),
    "only a publisher of the service runs": (queue(OLD), queue("stock.replies.host-1", 1)),
    "consumers that are not known": (queue(OLD, None), queue(NEW, 1)),
    "a queue whose node is down": (queue(OLD, last_error="down"), queue(NEW, 1)),
    "a queue that does not exist": (queue(OLD, exists=False), queue(NEW, 1)),
    "a request queue that expires": (queue("stock.requests.find.v1"), queue(NEW, 1)),
    "dead letters and retry tiers": (queue(f"{OLD}.dead"), queue("stock.retry.1s"), queue(NEW, 1)),
}


@pytest.mark.parametrize("name", FINE)
def test_no_other_queue_is_reported(name: str) -> None:
    assert find_unserved(FINE[name]) == {}


NAMES: Mapping[str, tuple[str, int] | None] = {
    OLD: ("stock.events.shop.sold", 1),
    f"{OLD}.index": ("stock.events.shop.sold.index", 1),
    f"{OLD}.v2": ("stock.events.shop.sold.v2", 1),
    "stock.requests.find.v12": ("stock.requests.find", 12),
    "stock.retry.30s": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_split_at_its_first_version(name: str) -> None:
    assert split_version(name) == NAMES[name]


def test_a_note_names_the_newer_version_and_the_command() -> None:
    report = QueueReport(server=SERVER, queues=(queue(OLD, ready=3), queue(NEW, 1)), at=0)
    assert list(notes(report)) == [
        (
            f"[yellow]{OLD}: 3 ready and no consumer, and stock consumes {NEW}; "
            "delete the old queue with `bus topology prune`[/]"
        )
    ]
    shown = report_to_json(report)["queues"]
    assert [(each["unserved"], each["newer"]) for each in shown] == [(True, NEW), (False, None)]


def test_a_note_about_a_dropped_subscription_names_a_pause_and_both_remedies() -> None:
    queues = (queue(OLD), queue("stock.jobs.count.v1", 1))
    assert find_unserved(queues) == {OLD: UnservedQueue(name=OLD)}
    assert list(notes(QueueReport(server=SERVER, queues=queues, at=0))) == [
        (
            f"[yellow]{OLD}: no consumer, although stock runs; `bus services stock` shows whether "
            "its consumer is paused. If not, start a worker that consumes it with `bus run`, or "
            "use `bus topology prune` if no router declares it[/]"
        )
    ]
