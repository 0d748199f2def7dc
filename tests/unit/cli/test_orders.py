"""`bus breakers` and `bus chaos`: their tables, their JSON, their reports and their exit codes."""

import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import typer
from rich.console import Console

from bus.cli import order_sending
from bus.cli.breaker_table import breaker_table, breakers_to_json
from bus.cli.breakers import breaker_names, without_breaker
from bus.cli.chaos import chaos_table, parse_plan
from bus.cli.errors import exit_code
from bus.cli.options import duration
from bus.cli.order_options import check_reason, end_after, target_of
from bus.cli.order_sending import Obeyed, give_order, report
from bus.cli.output import EscapingConsole
from bus.errors import (
    BusError,
    ContractError,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from bus.messaging.chaos_info import ChaosInfo, InstanceChaos
from bus.messaging.control import ALL, GetInfo, Ping, Question, Target
from bus.messaging.orders import IsolateBreaker, Order, OrderResult, ResetBreaker
from bus.messaging.policy_info import BreakerInfo, InstanceBreakers
from bus.testing.explicit_settings import ExplicitSettings
from tests.unit.runtime.discovery.fake_asker import FakeAsker
from tests.unit.runtime.discovery.records import info, served

NOW = 1_700_000_000.0
UNTIL = int((NOW + 90) * 1000)
ORDER = IsolateBreaker(breaker="billing.quote.v1", reason="it lies", until=UNTIL)
MISSING = "it has no breaker. Check it."


def identity(instance: str = "1", service: str = "web") -> dict[str, Any]:
    return {"service": service, "instance": instance, "started": 1, "state": "ready"}


def result(instance: str, why: str | None = None) -> OrderResult:
    outcome = "ignored" if why else "applied"
    return OrderResult(**identity(instance), outcome=outcome, why=why, changed=0 if why else 1)


def breaker(**changes: Any) -> BreakerInfo:
    known: dict[str, Any] = {
        "name": "billing.quote.v1",
        "kind": "call",
        "state": "open",
        "since": int((NOW - 180) * 1000),
        "until": int((NOW + 20) * 1000),
        "calls": 25,
        "failures": 20,
        "rejected": 1234,
        "cause": "5 consecutive failures (unavailable)",
    }
    return BreakerInfo(**(known | changes))


ISOLATED = breaker(state="isolated", cause="isolated by an operator", ordered_by="ida", reason="r")
CLOSED = breaker(name="stock.find.v1", state="closed", until=None, cause=None)


def lines(render: Callable[[Console], Any], width: int = 200) -> list[str]:
    written = io.StringIO()
    console = EscapingConsole(file=written, width=width)
    console.print(render(console))
    return [re.sub(" +", " ", line.strip()) for line in written.getvalue().splitlines()]


def listed(*records: InstanceBreakers, width: int = 200, everything: bool = False) -> list[str]:
    return lines(
        lambda console: breaker_table(records, console, now=NOW, everything=everything), width
    )


# --- bus breakers list ---


def test_a_breaker_with_a_state_and_a_kind_of_a_later_version_is_shown() -> None:
    answer = InstanceBreakers(
        **identity("1"), breakers=(CLOSED, breaker(state="forced-open", kind="queue"), ISOLATED)
    )
    record = InstanceBreakers.model_validate_json(answer.model_dump_json())
    rows = listed(record, everything=True)[3:]
    assert [row.split()[3:5] for row in rows] == [
        ["call", "isolated"],
        ["queue", "forced-open"],
        ["call", "closed"],
    ]


def test_the_breakers_that_are_not_closed_have_a_row_and_the_others_are_counted() -> None:
    records = (
        InstanceBreakers(**identity("1"), breakers=(CLOSED, breaker())),
        InstanceBreakers(**identity("2"), breakers=(ISOLATED,)),
    )
    assert listed(*records) == [
        "web: billing.quote.v1 was isolated by ida in 1 instance: r",
        "3 breakers, 1 closed; --all shows the closed ones",
        "service instance breaker kind state since ends in failed/calls 10s rejected cause",
        "web 2 billing.quote.v1 call isolated 3m 20s 20/25 1,234 isolated by an operator (ida)",
        "web 1 billing.quote.v1 call open 3m 20s 20/25 1,234 5 consecutive failures (unavailable)",
    ]


def test_all_breakers_are_shown_on_request() -> None:
    rows = listed(InstanceBreakers(**identity(), breakers=(CLOSED,)), everything=True)
    assert rows == [
        "1 breaker, 1 closed",
        "service instance breaker kind state since failed/calls 10s rejected",
        "web 1 stock.find.v1 call closed 3m 20/25 1,234",
    ]


def test_a_line_tells_who_ended_an_isolation_and_why() -> None:
    orders = {"ordered_by": "ida", "reason": "the disk is full"}
    ended = ISOLATED.model_copy(update={**orders, "state": "half-open"})
    reset = CLOSED.model_copy(update={**orders, "cause": "reset by an operator"})
    record = InstanceBreakers(**identity(), breakers=(ended, reset))
    above = [
        "web: billing.quote.v1 was isolated by ida in 1 instance: the disk is full",
        "web: stock.find.v1 was reset by ida in 1 instance: the disk is full",
    ]
    assert listed(record)[:2] == [above[0], "2 breakers, 1 closed; --all shows the closed ones"]
    assert listed(record, everything=True)[:3] == [*above, "2 breakers, 1 closed"]


def test_an_outage_begins_with_the_first_opening_and_a_probe_that_is_due_ends_it_now() -> None:
    probed = breaker(since=int(NOW * 1000), not_closed_since=int((NOW - 180) * 1000))
    due = probed.model_copy(update={"until": int((NOW - 1) * 1000)})
    rows = listed(InstanceBreakers(**identity(), breakers=(probed, due)))[2:]
    assert ["open 3m 20s" in rows[0], "open 3m now" in rows[1]] == [True, True]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_shows_the_operator_and_one_line_for_each_breaker(width: int) -> None:
    rows = listed(InstanceBreakers(**identity(), breakers=(ISOLATED,)), width=width)
    assert rows[0] == "web: billing.quote.v1 was isolated by ida in 1 instance: r"
    assert len(rows) == 4
    assert "isolated" in rows[3]


def test_texts_of_other_processes_cannot_control_the_terminal() -> None:
    hostile = breaker(state="isolated", cause="\x1b[2J", ordered_by="ida", reason="[red]\x1b]0;x\a")
    text = "\n".join(listed(InstanceBreakers(**identity(), breakers=(hostile,))))
    assert "\x1b" not in text
    assert "[red]" in text


def test_the_json_has_each_breaker_with_its_instance() -> None:
    record = InstanceBreakers(**identity(), breakers=(breaker(),))
    (entry,) = breakers_to_json([record], NOW)["breakers"]
    assert (entry["service"], entry["instance"], entry["state"]) == ("web", "1", "open")
    assert entry["until"] == int((NOW + 20) * 1000)


# --- Orders ---


async def test_an_order_is_given_to_the_instances_that_are_alive() -> None:
    def answers(question: Question[Any]) -> list[OrderResult]:
        return [result("1"), result("2")]

    asker = FakeAsker(answers)
    obeyed = await give_order(asker, ORDER, Target("web"), 0.01)
    assert (len(obeyed.applied), obeyed.alive) == (2, 2)
    asked = [(type(question), target, expected) for question, target, expected in asker.asked]
    assert asked == [(Ping, Target("web"), None), (IsolateBreaker, Target("web"), 2)]


async def test_an_order_without_live_instances_says_so() -> None:
    with pytest.raises(Unavailable, match="no instance of a service answered"):
        await give_order(FakeAsker(), ORDER, ALL, 0.01)


async def test_an_operator_without_the_right_to_read_can_order() -> None:
    asker = FakeAsker([result("1")])
    refused = PermissionDenied("the operator 'ida' may not read the state of services")
    ask = asker.ask

    async def ask_order(question: Question[Any], *args: Any, **kwargs: Any) -> Any:
        if not isinstance(question, Order):
            raise refused
        return await ask(question, *args, **kwargs)

    asker.ask = ask_order  # type: ignore[method-assign]
    obeyed = await give_order(asker, ORDER, ALL, 0.01)
    assert (len(obeyed.applied), obeyed.alive) == (1, 1)


def test_a_report_counts_the_instances_that_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    obeyed = Obeyed(ORDER, [result("1"), result("2", "not-found")], 2)
    report(obeyed, "isolated x", missing=MISSING, as_json=False)
    told = capsys.readouterr()
    assert re.fullmatch(r"isolated x: 1 of 2 instances, until \d\d:\d\d:\d\d UTC\n", told.out)
    assert told.err == f"web 2: ignored, because {MISSING}\n"


def test_an_order_for_an_unknown_breaker_names_similar_ones_and_the_meaning_of_a_name() -> None:
    names = {"store.count.v1", "desk.ask.v1", "printer"}
    for name in ("store.count", "store.cuont.v1"):
        text = without_breaker(name, names)
        assert text.startswith(
            "it has no breaker with this name; did you mean 'store.count.v1'? NAME is a type with "
            "its version"
        )
        assert "--service is the caller" in text
    assert "did you mean" not in without_breaker("store.count.v1", {"store.count.v1"})


async def test_the_names_of_breakers_are_those_of_handled_requests_and_of_dependencies() -> None:
    def answers(question: Question[Any]) -> list[Any]:
        if isinstance(question, GetInfo):
            return [info("a", served(), served(type="billing.paid.v1", kind="event"))]
        printer = breaker(name="printer", kind="dependency")
        return [InstanceBreakers(**identity(), breakers=(printer,))]

    names = await breaker_names(FakeAsker(answers), Target("web"), 0.01)
    assert names == {"billing.get.v1", "printer"}


def test_a_reset_has_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    order = ResetBreaker(breaker="a.b.v1", reason="r", until=UNTIL)
    report(Obeyed(order, [result("1")], 1), "reset x", missing=MISSING, as_json=False)
    assert capsys.readouterr().out == "reset x: 1 of 1 instance\n"


@pytest.mark.parametrize(
    ("results", "alive", "error", "code", "text"),
    [
        ([result("1", "not-found")], 1, NotFound, 66, MISSING),
        ([result("1", "ended")], 1, FailedPrecondition, 78, "over by its clock"),
        ([result("1", "later")], 1, FailedPrecondition, 78, "later"),
        ([result("1")], 3, DeadlineExceeded, 75, "2 live instances did not answer"),
        ([], 1, DeadlineExceeded, 75, "1 live instance did not answer"),
    ],
)
def test_an_order_that_not_all_obeyed_has_an_exit_code(
    results: list[OrderResult], alive: int, error: type[BusError], code: int, text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)) as caught:
        report(Obeyed(ORDER, results, alive), "isolated x", missing=MISSING, as_json=False)
    assert exit_code(caught.value) == code


def test_of_all_services_only_those_with_the_breaker_are_shown() -> None:
    obeyed = Obeyed(ORDER, [result("1"), result("2", "not-found")], 3).without_missing()
    assert (len(obeyed.results), obeyed.alive) == (1, 2)
    nothing = Obeyed(ORDER, [result("2", "not-found")], 1)
    assert nothing.without_missing() is nothing


def test_the_json_of_an_order_has_each_answer(capsys: pytest.CaptureFixture[str]) -> None:
    report(Obeyed(ORDER, [result("1")], 1), "isolated x", missing=MISSING, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["applied"], told["alive"], told["until"]) == (1, 1, UNTIL)
    assert told["instances"][0]["outcome"] == "applied"


def test_without_a_key_the_order_names_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_sending, "who", lambda: "ida@laptop")
    assert order_sending.operator_name(ExplicitSettings(auth="off")) == "ida@laptop"
    assert order_sending.operator_name(ExplicitSettings(auth="on")) is None


# --- Options ---


def test_an_order_needs_a_service_or_all() -> None:
    assert target_of("web", None, all_=False) == Target("web")
    assert target_of("web", "web-1", all_=False) == Target("web", "web-1")
    assert target_of(None, None, all_=True) == ALL
    for arguments in ((None, None, False), ("web", None, True), (None, "web-1", True)):
        with pytest.raises(ContractError):
            target_of(arguments[0], arguments[1], all_=arguments[2])


@pytest.mark.parametrize("text", ["", "  ", "x" * 201, "two\nlines", "\x1b[31m"])
def test_a_reason_has_limits(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="1 to 200 characters"):
        check_reason(text)


@pytest.mark.parametrize("text", ["5", "7w", "", "m"])
def test_a_duration_without_a_unit_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"a number with a unit \(s, m, h or d\)"):
        duration(text)


@pytest.mark.parametrize("seconds", [0, 3601])
def test_an_end_has_limits(seconds: float) -> None:
    with pytest.raises(typer.BadParameter, match="up to 1h"):
        end_after(seconds, 3600)


def test_a_wrong_plan_is_a_wrong_argument_with_the_position() -> None:
    with pytest.raises(typer.BadParameter, match="character 8: a fault must stand here"):
        parse_plan("toll.x:boom")


# --- bus chaos status ---


def chaos_of(info: ChaosInfo | None, width: int = 200) -> list[str]:
    record = InstanceChaos(**identity(), chaos=info)
    return lines(lambda console: chaos_table([record], console, now=NOW), width)


RUNNING = ChaosInfo(
    rules=("billing.quote: latency=200ms@10%", "*: duplicate@2%"),
    since=int((NOW - 60) * 1000),
    until=UNTIL,
    ordered_by="ida",
    reason="game day",
    seed=7,
    faults={"latency": 3, "duplicate": 1},
)


def test_a_running_experiment_has_a_row_for_each_rule() -> None:
    assert chaos_of(RUNNING) == [
        "faults service instance injected ends in by reason seed",
        "billing.quote: latency=200ms@10% web 1 duplicate 1, latency 3 90s ida game day 7",
        "*: duplicate@2% web 1 duplicate 1, latency 3 90s ida game day 7",
    ]
    assert len(chaos_of(RUNNING, width=60)) == 3


def test_no_experiment_is_a_sentence() -> None:
    assert chaos_of(None) == ["no chaos experiment in 1 instance"]
