"""The usage of contracts, from the answers of live instances."""

import pytest

from bus.contracts.contract import Catalog, Event, Message, Request, contract
from bus.messaging.instruments import DUPLICATES, HANDLED, SENT
from bus.messaging.service_info import ContractInfo, InstanceInfo, InstanceStats, Series
from bus.operations.contract_usage import Caller, Server, Watched, examine_usage

NOW = 1_796_000_000_000
CATALOG = Catalog()


class Total(Message): ...


@contract("ledger.total", version=1, catalog=CATALOG)
class GetTotal(Request[Total]): ...


@contract("ledger.total", version=2, catalog=CATALOG)
class GetTotalTwo(Request[Total]): ...


@contract("ledger.closed", version=1, catalog=CATALOG)
class Closed(Event): ...


def info(
    service: str, *types: str, instance: str = "1", subscription: str | None = None
) -> InstanceInfo:
    return InstanceInfo(
        service=service,
        instance=instance,
        started=NOW,
        state="ready",
        bus_version="1",
        python_version="3",
        contracts=tuple(
            ContractInfo(
                type=each,
                kind="event" if subscription else "request",
                permission="p",
                queue="q",
                subscription=subscription,
                digest="d",
            )
            for each in types
        ),
    )


def stats(
    service: str, *series: Series, instance: str = "1", since: int = NOW, left_out: int = 0
) -> InstanceStats:
    return InstanceStats(
        service=service,
        instance=instance,
        started=since,
        state="ready",
        since=since,
        series=series,
        left_out=left_out,
    )


def sent(
    operation: str, number: float, last: int = 0, *, version: str = "1", outcome: str = "ok"
) -> Series:
    labels = {"operation": operation, "version": version, "kind": "request", "outcome": outcome}
    return Series(name=SENT.name, labels=labels, value=number, last=last)


def handled(
    operation: str,
    caller: str,
    number: float,
    last: int = 0,
    *,
    version: str = "1",
    subscription: str = "",
) -> Series:
    labels = {
        "operation": operation,
        "version": version,
        "kind": "event" if subscription else "request",
        "subscription": subscription,
        "caller": caller,
        "outcome": "ok",
    }
    return Series(name=HANDLED.name, labels=labels, value=number, last=last)


def test_the_servers_of_a_version_are_the_services_whose_instances_serve_it() -> None:
    report = examine_usage(
        [info("ledger", "ledger.total.v1"), info("ledger", "ledger.total.v1", instance="2")], []
    )
    (usage,) = report.contracts
    assert (usage.type, usage.kind, usage.callers) == ("ledger.total.v1", "request", ())
    assert usage.servers == (Server(service="ledger", instances=2),)


def test_a_caller_is_counted_by_itself_and_by_the_servers() -> None:
    report = examine_usage(
        [info("ledger", "ledger.total.v1")],
        [
            stats("office", sent("ledger.total", 3, NOW + 7), instance="a"),
            stats("office", sent("ledger.total", 4, NOW + 5, outcome="not_found"), instance="b"),
            stats("ledger", handled("ledger.total", "office", 6, NOW + 9)),
        ],
    )
    (usage,) = report.contracts
    assert usage.callers == (Caller(service="office", sent=7, handled=6, last=NOW + 9),)
    assert usage.servers == (Server(service="ledger", instances=1, handled=6, last=NOW + 9),)


def test_a_caller_that_has_stopped_is_known_from_its_servers() -> None:
    report = examine_usage([], [stats("ledger", handled("ledger.total", "archive", 2, NOW))])
    (usage,) = report.contracts
    assert usage.callers == (Caller(service="archive", handled=2, last=NOW),)
    assert usage.servers == (Server(service="ledger", instances=0, handled=2, last=NOW),)


def test_a_call_that_no_service_serves_has_a_caller_and_no_server() -> None:
    report = examine_usage([], [stats("office", sent("ledger.total", 1, outcome="unavailable"))])
    (usage,) = report.contracts
    assert usage.callers == (Caller(service="office", sent=1),)
    assert usage.servers == ()


def test_the_subscriptions_of_an_event_are_apart() -> None:
    report = examine_usage(
        [
            info("audit", "ledger.closed.v1", subscription="fast"),
            info("audit", "ledger.closed.v1", subscription="slow"),
        ],
        [stats("audit", handled("ledger.closed", "ledger", 5, NOW, subscription="slow"))],
    )
    (usage,) = report.contracts
    assert usage.kind == "event"
    assert usage.servers == (
        Server(service="audit", subscription="fast", instances=1),
        Server(service="audit", subscription="slow", instances=1, handled=5, last=NOW),
    )
    assert usage.callers == (Caller(service="ledger", handled=5, last=NOW),)


def test_an_old_version_in_use_is_found_in_the_answers_and_in_the_catalog() -> None:
    old = stats("office", sent("ledger.total", 1))
    assert examine_usage([], [old]).old == ()
    (in_catalog,) = examine_usage([], [old], CATALOG).old
    (in_answers,) = examine_usage([info("ledger", "ledger.total.v2")], [old]).old
    for usage in (in_catalog, in_answers):
        assert (usage.type, usage.latest, usage.is_old) == ("ledger.total.v1", 2, True)


def test_a_version_that_is_only_in_the_catalog_is_unused_and_not_old() -> None:
    report = examine_usage(
        [info("ledger", "ledger.total.v2")],
        [stats("office", sent("ledger.total", 1, version="2"))],
        CATALOG,
    )
    assert [each.type for each in report.contracts] == [
        "ledger.closed.v1",
        "ledger.total.v1",
        "ledger.total.v2",
    ]
    assert [each.type for each in report.unused] == ["ledger.closed.v1", "ledger.total.v1"]
    assert report.old == ()


def test_versions_are_in_numeric_order() -> None:
    report = examine_usage([info("x", "x.a.v10", "x.a.v9", "x.a.v2")], [])
    assert [each.version for each in report.contracts] == [2, 9, 10]


def test_the_report_has_the_begin_of_each_count() -> None:
    report = examine_usage(
        [],
        [
            stats("office", instance="b", since=NOW + 5000),
            stats("ledger", instance="a", since=NOW),
        ],
    )
    assert report.since == NOW
    assert report.watched == (
        Watched(service="ledger", instance="a", since=NOW),
        Watched(service="office", instance="b", since=NOW + 5000),
    )
    assert examine_usage([], []).since is None


def test_what_an_instance_does_not_count_by_contract_is_reported() -> None:
    combined = dict.fromkeys(("operation", "version", "kind", "outcome"), "other")
    report = examine_usage(
        [],
        [
            stats("office", Series(name=SENT.name, labels=combined, value=40), left_out=3),
            stats("ledger", Series(name=DUPLICATES.name, labels=combined, value=7)),
        ],
    )
    assert (report.contracts, report.combined, report.left_out) == ((), 40, 3)


def test_answers_of_a_later_version_do_no_harm() -> None:
    report = examine_usage(
        [info("later", "later", "later.x", "later.x.v0", "x.v1", "later.y.v1")],
        [
            stats(
                "later",
                Series(name=SENT.name),
                Series(name=SENT.name, labels={"version": "1", "kind": "stream"}, value=3),
                Series(name="messages.invented", labels={"version": "1"}, value=3),
                sent("later.x", 0),
            )
        ],
    )
    assert [each.type for each in report.contracts] == ["later.y.v1"]


def test_a_service_cannot_serve_or_handle_the_contracts_of_another_service() -> None:
    lie = info("mallory", "ledger.total.v1", "ledger.total.v9")
    event = lie.contracts[0].model_copy(update={"kind": "event"})
    lie = lie.model_copy(update={"contracts": (*lie.contracts, event)})
    report = examine_usage(
        [lie, info("ledger", "ledger.total.v1")],
        [stats("mallory", handled("ledger.total", "office", 5), handled("ledger.total", "x", 1))],
    )
    (usage,) = report.contracts
    assert (usage.type, usage.latest, usage.callers) == ("ledger.total.v1", 1, ())
    assert usage.servers == (Server(service="ledger", instances=1),)
    assert report.combined == 6


def test_only_the_owner_of_a_contract_decides_which_version_is_the_latest() -> None:
    stranger = stats("mallory", sent("ledger.total", 7, version="9"))
    report = examine_usage([info("ledger", "ledger.total.v1")], [stranger])
    assert [(each.type, each.latest) for each in report.contracts] == [
        ("ledger.total.v1", 1),
        ("ledger.total.v9", 1),
    ]
    assert report.old == ()
    catalog = examine_usage([info("ledger", "ledger.total.v1")], [], CATALOG)
    assert [each.type for each in catalog.old] == ["ledger.total.v1"]


def test_each_service_can_subscribe_to_an_event_and_the_sender_decides_its_latest_version() -> None:
    events = info("office", "ledger.closed.v1", subscription="mail")
    labels = {"operation": "ledger.closed", "version": "2", "kind": "event", "outcome": "ok"}
    report = examine_usage(
        [events], [stats("ledger", Series(name=SENT.name, labels=labels, value=1))]
    )
    assert [(each.type, each.latest) for each in report.contracts] == [
        ("ledger.closed.v1", 2),
        ("ledger.closed.v2", 2),
    ]
    assert [each.service for each in report.contracts[0].servers] == ["office"]


@pytest.mark.parametrize("caller", ["[/red]", "a\nb", "", "Office", "-"])
def test_a_caller_without_a_valid_name_is_counted_together_with_others(caller: str) -> None:
    report = examine_usage(
        [info("ledger", "ledger.total.v1")], [stats("ledger", handled("ledger.total", caller, 4))]
    )
    (usage,) = report.contracts
    assert (usage.callers, report.combined) == ((), 4)
