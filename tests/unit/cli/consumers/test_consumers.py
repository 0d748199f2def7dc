"""`bus consumers`: its table, its JSON, its targets and its reports."""

import io
import re
from typing import Any

import pytest
import typer

from bus.cli.consumers.commands import pause, service_and_target, storing_line
from bus.cli.consumers.table import consumers_table, consumers_to_json
from bus.cli.order_sending import Obeyed, report
from bus.cli.output import EscapingConsole
from bus.cli.top.operations import operation_rows, operations_table
from bus.errors import ContractError, FailedPrecondition, NotFound
from bus.messaging.orders import OrderResult, PauseConsumers
from bus.messaging.service_info import InstanceStats
from bus.runtime.discovery.measurements import Measurement
from bus.runtime.discovery.operation_problems import problems_of
from bus.runtime.discovery.operation_summary import summarize
from bus.runtime.discovery.service_summary import summarize_services
from tests.unit.runtime.discovery.records import view_of

NOW = 1_700_000_000.0
PAUSE = {
    "by": "ida",
    "reason": "the flour is bad",
    "at": int(NOW * 1000),
    "until": int((NOW + 90) * 1000),
    "stored": True,
}


def handler(**changes: Any) -> dict[str, Any]:
    known = {
        "operation": "bakery.bake",
        "version": 1,
        "kind": "job",
        "queue": "bakery.jobs.bake.v1",
        "slots": 2,
        "free": 1,
        "in_flight": 1,
    }
    return known | changes


def paused(**changes: Any) -> dict[str, Any]:
    return handler(pauses=["operator"], operator_pause=PAUSE | changes)


def record(instance: str, *handlers: dict[str, Any]) -> InstanceStats:
    return InstanceStats.model_validate(
        {
            "service": "bakery",
            "instance": instance,
            "started": 1,
            "since": 1,
            "state": "ready",
            "handlers": handlers,
        }
    )


def listed(*records: InstanceStats, only_paused: bool = False, width: int = 200) -> list[str]:
    written = io.StringIO()
    console = EscapingConsole(file=written, width=width)
    console.print(consumers_table(records, console, now=NOW, only_paused=only_paused))
    return [re.sub(" +", " ", line.strip()) for line in written.getvalue().splitlines()]


EVENT = handler(kind="event", queue="bakery.events.mill.ground.v1", operation="mill.ground")
REQUEST = handler(kind="request", queue="bakery.requests.price.v1")


def test_a_queue_has_one_row_for_all_instances_and_the_paused_ones_come_first() -> None:
    rows = listed(record("a", EVENT, paused(), REQUEST), record("b", EVENT, handler()))
    assert rows == [
        "queue kind instances in flight paused by ends in stored reason",
        "bakery.jobs.bake.v1 job 2 2 1/2 ida 90s yes the flour is bad",
        "bakery.events.mill.ground.v1 event 2 2 - - - - -",
    ]


def test_a_pause_of_a_dependency_is_shown_beside_that_of_an_operator() -> None:
    both = paused(until=None, stored=False) | {"pauses": ["operator", "dependency:ehr"]}
    (row,) = listed(record("a", both), only_paused=True)[1:]
    assert row == "bakery.jobs.bake.v1 job 1 1 1/1 ida, dependency:ehr never no the flour is bad"


def test_a_list_without_rows_says_how_many_instances_answered() -> None:
    assert listed(record("a", REQUEST)) == ["no consumer of events or jobs in 1 instance"]
    assert listed(record("a", EVENT), only_paused=True) == ["no paused consumer in 1 instance"]


def test_the_texts_of_an_operator_cannot_control_the_terminal() -> None:
    (row,) = listed(record("a", paused(reason="[red]\x1b]0;x\a")), only_paused=True)[1:]
    assert "\x1b" not in row
    assert "[red]" in row


def test_the_json_has_each_queue_with_its_pause() -> None:
    value = consumers_to_json([record("a", EVENT, paused())], NOW, only_paused=True)
    assert value == {
        "at": NOW,
        "consumers": [
            {
                "service": "bakery",
                "queue": "bakery.jobs.bake.v1",
                "kind": "job",
                "instances": 1,
                "in_flight": 1,
                "paused": 1,
                "operator_pause": PAUSE,
                "other_pauses": [],
            }
        ],
    }


@pytest.mark.parametrize(
    ("target", "service", "expected"),
    [
        ("bakery", None, ("bakery", None)),
        ("bakery", "bakery", ("bakery", None)),
        ("bakery.bake.v1", None, ("bakery", "bakery.bake.v1")),
        ("bakery.jobs.bake.v1", None, ("bakery", "bakery.jobs.bake.v1")),
        ("mill.ground.v1", "bakery", ("bakery", "mill.ground.v1")),
    ],
)
def test_a_target_is_a_service_a_type_or_a_queue(
    target: str, service: str | None, expected: tuple[str, str | None]
) -> None:
    assert service_and_target(target, service) == expected


def test_a_target_of_another_service_is_refused() -> None:
    with pytest.raises(NotFound, match=r"'mill' is not a type or a queue of the service 'bakery'"):
        service_and_target("mill", "bakery")
    with pytest.raises(ContractError):
        service_and_target("Bakery!", None)


def test_a_pause_with_two_ends_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="two ends"):
        pause("bakery", reason="r", for_=60.0, until_resumed=True)


def order(**fields: Any) -> PauseConsumers:
    return PauseConsumers(reason="r", until=int((NOW + 90) * 1000), **fields)


def result(instance: str = "a", **fields: Any) -> OrderResult:
    return OrderResult(
        service="bakery",
        instance=instance,
        started=1,
        state="ready",
        **{"outcome": "applied", **fields},
    )


def test_a_report_names_the_end_of_a_pause(capsys: pytest.CaptureFixture[str]) -> None:
    for given, end in (
        (order(), r"until \d\d:\d\d:\d\d UTC"),
        (order(until_resumed=True), "until"),
    ):
        report(Obeyed(given, [result()], 1), "paused bakery", missing="", as_json=False)
        assert re.match(rf"paused bakery: 1 of 1 instance, {end}", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        ([True, True], "stored: instances that start later begin paused"),
        ([None], "not stored: the service has no store, so instances that start later are not"),
        ([True, False], "not stored by every instance: the store did not confirm it in time"),
    ],
)
def test_a_report_says_whether_the_store_keeps_the_pause(
    stored: list[bool | None], line: str
) -> None:
    assert storing_line([result(stored=each) for each in stored]).startswith(line)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("not-pausable", "it handles requests, and their callers wait. To keep requests away"),
        ("no-store", "Pass --for TIME, or set BUS_STORE of the service."),
    ],
)
def test_a_refused_pause_says_what_to_do(why: str, text: str) -> None:
    refused = Obeyed(order(), [result(outcome="ignored", why=why)], 1)
    with pytest.raises(FailedPrecondition) as caught:
        report(refused, "paused bakery", missing="", as_json=False)
    assert text in str(caught.value)
    assert "clocks" not in str(caught.value)


# --- In the other commands ---


def test_bus_services_tells_who_paused_a_consumer_and_why() -> None:
    (row,) = summarize([Measurement(stats=record("a", paused()))]).handled
    (problem,) = problems_of(row)
    assert problem.code == "paused"
    assert problem.text == (
        "bakery.bake.v1: 1 of 1 consumers paused by the operator ida "
        "(until 22:14:50 UTC, stored): the flour is bad"
    )


def test_bus_top_names_the_operator_of_a_pause() -> None:
    services = summarize_services(view_of(record("a", paused())).live())
    rows = operation_rows(services, "rate")
    written = io.StringIO()
    console = EscapingConsole(file=written, width=200)
    console.print(operations_table(rows, console))
    assert "bakery.bake.v1 paused: operator ida" in written.getvalue()
