"""`bus services`: its tables, its JSON, its errors, and its display over time."""

import io
import json
import re
import time
from collections.abc import Sequence

import pytest
from rich.console import Console

from bus.cli.output import EscapingConsole
from bus.cli.services.as_json import services_to_json
from bus.cli.services.commands import check_service
from bus.cli.services.detail import service_detail
from bus.cli.services.list_table import services_table
from bus.cli.services.questions import ask_services
from bus.cli.services.watch import ServiceWatch
from bus.errors import ContractError, NotFound, Unavailable
from bus.messaging import instruments
from bus.messaging.control import Announcement, GetInfo, GetStats, Ping, Question, Target
from bus.messaging.service_info import (
    ErrorInfo,
    HandlerState,
    InstanceInfo,
    InstanceState,
    InstanceStats,
)
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from bus.runtime.discovery.service_summary import ServiceSummary, summarize_services
from tests.unit.runtime.discovery.fake_asker import FakeAsker
from tests.unit.runtime.discovery.records import (
    GET,
    SENT,
    called,
    counted,
    handler,
    info,
    served,
    stats,
    timed,
    view_of,
)

BRIEF = 0.01


def summaries(*records: InstanceState) -> list[ServiceSummary]:
    return summarize_services(view_of(*records).instances())


def console_of(width: int) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return EscapingConsole(file=written, width=width), written


def table(*records: InstanceState, width: int = 200) -> list[str]:
    console, written = console_of(width)
    console.print(services_table(summaries(*records), console))
    return lines_of(written)


def detail(
    *records: InstanceState,
    infos: tuple[InstanceInfo, ...] = (),
    width: int = 200,
    verbose: bool = False,
) -> list[str]:
    console, written = console_of(width)
    (service,) = summaries(*records)
    console.print(service_detail(service, console, infos, verbose=verbose))
    return lines_of(written)


def lines_of(written: io.StringIO) -> list[str]:
    return [re.sub(" +", " ", line.strip()) for line in written.getvalue().splitlines()]


def error(code: str = "internal", *, seconds_ago: int = 180, place: str | None = None) -> ErrorInfo:
    return ErrorInfo(code=code, at=int((time.time() - seconds_ago) * 1000), place=place)


BUSY = stats(
    handlers=[handler(free=1)],
    started=int((time.time() - 7200) * 1000),
    series=[counted(990), counted(10, "not_found"), timed(0.02, 0.02)],
)


def test_each_service_has_a_row() -> None:
    lines = table(BUSY, stats(service="shop", version=None, started=int(time.time() * 1000)))
    assert lines == [
        "service instances state version operations handled errors p50 p99 slots up",
        "billing 1 ready 1.0 1 1,000 1.0% 18ms 20ms 3/4 2h",
        "shop 1 ready - 0 0 - - - 0/0 0s",
    ]


def test_services_with_problems_come_first_with_a_line_for_each_problem() -> None:
    lines = table(
        BUSY,
        stats(service="shop", state="not-ready"),
        stats("b", service="shop", version="1.1"),
        stats(service="stock", state="draining"),
    )
    assert lines[:3] == [
        "shop: 1 of 2 instances is not-ready",
        "shop: instances run different versions: 1.0, 1.1",
        "stock: 1 of 1 instances is draining",
    ]
    assert [line.split()[:4] for line in lines[4:]] == [
        ["shop", "2", "not-ready", "1/2"],
        ["stock", "1", "draining", "1.0"],
        ["billing", "1", "ready", "1.0"],
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_shows_the_important_columns_on_one_line_each(width: int) -> None:
    lines = table(BUSY, width=width)
    assert len(lines) == 2
    assert {"service", "instances", "state", "errors", "p99"} <= set(lines[0].split())


def test_the_durations_of_a_service_are_those_of_its_requests() -> None:
    job = {"operation": "billing.close", "version": "1", "kind": "job", "subscription": ""}
    (service,) = summaries(stats(series=[timed(0.02), timed(60.0, labels=job)]))
    assert service.durations.max == 0.02
    (jobs_only,) = summaries(stats(series=[timed(60.0, labels=job)]))
    assert jobs_only.durations.max == 60


def test_the_detail_has_instances_operations_and_errors() -> None:
    failing = handler(
        last_error=error(place="billing/app.py:12 get"), in_flight=2, free=2, oldest_seconds=45
    )
    lines = detail(
        stats(
            "host-1",
            handlers=[failing],
            series=[counted(97), counted(2, "internal"), counted(1, "not_found"), timed(0.02)],
        ),
        stats("host-2", handlers=[handler()], version="1.1"),
        infos=(info("host-1"),),
    )
    assert lines == [
        "billing: instances run different versions: 1.0, 1.1",
        "instance state version up since start handled errors p99 in flight slots bus",
        f"host-1 ready 1.0 {int(time.time() / 86400)}d 100 100 3.0% 20ms 2 2/4 0.16.0",
        f"host-2 ready 1.1 {int(time.time() / 86400)}d 0 0 - - 0 0/4 -",
        "",
        "operation since start handled errors p50 p90 p99 max oldest in flight slots",
        "billing.get.v1 100 100 3.0% 18ms 20ms 20ms 20ms 45s 2 2/8",
        (
            "billing.get.v1 since start: 2 internal, 1 not_found; last internal 3m ago "
            "at billing/app.py:12 get in host-1"
        ),
    ]


def test_the_detail_shows_an_instance_that_is_flooded() -> None:
    assert any("ready, flooded" in line for line in detail(stats("a", flooded=True)))


def test_the_detail_has_start_delays_subscriptions_pauses_and_dead_letters() -> None:
    labels = {
        "operation": "shop.sold",
        "version": "2",
        "kind": "event",
        "subscription": "ledger",
    }
    event = handler(
        operation="shop.sold", version=2, kind="event", subscription="ledger", pauses=["operator"]
    )
    dead = counted(3, "internal", labels=labels)
    lines = detail(
        stats(
            handlers=[event],
            series=[
                timed(1.5, labels=labels, instrument=instruments.START_DELAY_SECONDS),
                dead.model_copy(update={"name": instruments.DEAD_LETTERS.name}),
            ],
        )
    )
    assert lines[0] == "billing: shop.sold.v2: 1 of 1 consumers paused by operator"
    assert "shop.sold.v2 (ledger) 0 0 - - 1.5s 0 0/4" in lines
    assert lines[-1] == "shop.sold.v2 (ledger) since start: 3 dead letters"


def test_the_detail_has_the_messages_that_a_service_sends() -> None:
    calls = [
        counted(8, labels=SENT),
        counted(2, "unavailable", labels=SENT),
        timed(0.2, instrument=instruments.SEND_SECONDS, labels=SENT),
    ]
    lines = detail(stats(series=calls))
    assert lines[-3:] == [
        "sends kind since start sent errors p50 p99 max",
        "stock.find.v2 request 10 10 20% 180ms 200ms 200ms",
        "sends stock.find.v2 since start: 2 unavailable",
    ]


def test_the_detail_and_the_json_have_the_hedges_the_refused_hedges_and_the_fallbacks() -> None:
    record = stats(
        series=[
            counted(8, labels=SENT),
            called(instruments.CALLS_RETRIED, 4),
            called(instruments.CALLS_HEDGED, 5),
            called(instruments.CALLS_REJECTED, 3, policy="budget"),
            called(instruments.FALLBACKS, 2, recent=0),
        ]
    )
    assert detail(record)[-1] == (
        "sends stock.find.v2 since start: 4 sent again, 5 hedged, 3 not sent by the budget, "
        "2 answered by a fallback"
    )
    (service,) = services_to_json(summarize_services(view_of(record).instances()), at=0)["services"]
    (sent,) = service["sent"]
    found = [sent[key] for key in ("retried", "hedged", "rejected", "fallbacks")]
    assert found == [4, 5, {"budget": 3}, 2]


def test_the_tables_have_the_recent_attempts_and_the_detail_also_those_since_the_start() -> None:
    record = stats(
        handlers=[handler()],
        series=[counted(8_080, recent=80), counted(30, "internal", recent=20)],
    )
    assert table(record)[-1].split()[5:7] == ["100", "20%"]
    lines = detail(record)
    assert lines[-1] == "billing.get.v1 since start: 30 internal"
    for row in (lines[2], lines[5]):
        assert "8,110 100 20%" in row


def test_the_json_has_the_recent_attempts_and_those_since_the_start() -> None:
    record = stats(
        handlers=[handler(oldest_seconds=45.5)],
        series=[counted(8_080, recent=80), counted(30, "internal", recent=20)],
    )
    (service,) = services_to_json(summaries(record), at=0)["services"]
    assert [service[key] for key in ("handled", "failed")] == [8_110, 30]
    assert [service[key] for key in ("recently_handled", "recently_failed")] == [100, 20]
    (operation,) = service["operations"]
    assert (operation["count"], operation["errors"]) == (8_110, {"internal": 30})
    assert (operation["recent_count"], operation["recent_errors"]) == (100, {"internal": 20})
    assert operation["oldest"] == 45.5


def test_an_answer_that_was_cut_is_reported() -> None:
    cut = info("a").model_copy(update={"left_out": 1})
    lines = detail(stats("a", left_out=12), infos=(cut,))
    assert lines[-2:] == [
        "a: 12 values left out, because the answer is too large",
        "a: 1 value left out, because the answer is too large",
    ]
    (service,) = services_to_json(summaries(stats("a", left_out=12)), [cut], at=0)["services"]
    assert service["instances"][0]["left_out"] == 13


def test_the_verbose_detail_has_each_operation_of_each_instance() -> None:
    records = [stats(name, handlers=[handler()], series=[counted(5)]) for name in ("a", "b")]
    rows = ["billing.get.v1 10 10 0% - 0 0/8", "a 5 5 0% - 0 0/4", "b 5 5 0% - 0 0/4"]
    lines = detail(*records, verbose=True)
    assert lines[lines.index(rows[0]) :][:3] == rows
    assert rows[0] in detail(*records)
    assert rows[1] not in detail(*records)


def test_the_verbose_detail_has_the_contracts_and_shows_two_schemas_of_one_type() -> None:
    infos = (info("a", served("ab" * 32)), info("b", served("cd" * 32, reply_digest="ef" * 32)))
    lines = detail(stats("a"), stats("b"), infos=infos, verbose=True)
    assert lines[-3:] == [
        "contract kind permission instances digest reply digest",
        "billing.get.v1 request read:bills 1/2 abababababab -",
        "billing.get.v1 request read:bills 1/2 cdcdcdcdcdcd efefefefefef",
    ]
    assert "contract kind" not in " ".join(detail(stats("a"), infos=infos[:1]))


@pytest.mark.parametrize("width", [60, 80])
def test_no_line_of_a_detail_is_cut_on_a_narrow_terminal(width: int) -> None:
    console, written = console_of(width)
    (service,) = summaries(stats("host-1-0123456789ab", handlers=[handler()], series=BUSY.series))
    console.print(service_detail(service, console, (info(),), verbose=True))
    assert "host-1-0123456789ab" in written.getvalue()
    assert "…" not in written.getvalue()
    assert max(map(len, written.getvalue().splitlines())) <= width


def test_a_text_of_a_service_cannot_move_the_cursor() -> None:
    named = stats(handlers=[handler(last_error=error("a\x1bb"))])
    forged = named.model_copy(update={"instance": "x\x1b[2J\ny", "version": "1\x9b1A"})
    assert not re.search(r"[\x1b\x9b]", "\n".join(table(forged) + detail(forged)))


def test_a_service_with_very_many_instances_has_a_bounded_json() -> None:
    records = [
        stats(
            f"{number:04}", series=[counted(1, labels={**GET, "operation": f"billing.a{number}"})]
        )
        for number in range(3000)
    ]
    (service,) = services_to_json(summaries(*records), at=1)["services"]
    assert len(service["instances"]) == 200
    assert service["states"] == {"ready": 1000}
    assert len(service["operations"]) <= 2000


def test_the_json_has_every_documented_key() -> None:
    record = stats(
        handlers=[handler(last_error=error(place="billing/app.py:12 get"), last_handled=5)],
        series=[counted(9), counted(1, "internal"), timed(0.02), counted(3, labels=SENT)],
    )
    value = services_to_json(summaries(record), [info("a", served())], at=12.3456)
    assert json.loads(json.dumps(value)) == value
    assert (value["at"], value["error"]) == (12.346, None)
    (service,) = value["services"]
    assert {key: service[key] for key in ("name", "state", "states", "versions", "started")} == {
        "name": "billing",
        "state": "ready",
        "states": {"ready": 1},
        "versions": ["1.0"],
        "started": 1,
    }
    assert (service["handled"], service["failed"], service["rate"]) == (10, 1, None)
    assert (service["slots"], service["used"], service["max"]) == (4, 0, 0.02)
    assert service["problems"] == [
        {
            "code": "failing",
            "text": "billing.get.v1: 10% of the attempts in the last 1 to 2 minutes failed",
        }
    ]
    (operation,) = service["operations"]
    assert operation["errors"] == {"internal": 1}
    assert operation["last_error"]["instance"] == "a"
    assert (operation["type"], operation["last_handled"]) == ("billing.get.v1", 5)
    assert [each["type"] for each in service["sent"]] == ["stock.find.v2"]
    (instance,) = service["instances"]
    assert instance["contracts"][0]["digest"] == "ab" * 32
    assert instance["operations"][0]["count"] == 10
    assert (instance["bus_version"], instance["state"]) == ("0.16.0", "ready")


def test_an_instance_without_an_answer_to_info_has_no_contracts_in_the_json() -> None:
    (service,) = services_to_json(summaries(stats()), at=0)["services"]
    assert service["instances"][0]["contracts"] is None


def answers(question: Question[InstanceState]) -> list[InstanceState]:
    return [info("a", served())] if isinstance(question, GetInfo) else [stats("a")]


async def test_a_service_is_asked_for_its_statistics_and_contracts_at_the_same_time() -> None:
    asker = FakeAsker(answers)
    found = await ask_services(asker, "billing", BRIEF)
    assert [service.name for service in found.services] == ["billing"]
    assert [each.instance for each in found.infos] == ["a"]
    assert [(type(question), target) for question, target, _ in asker.asked] == [
        (GetStats, Target("billing")),
        (GetInfo, Target("billing")),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("biling", "service 'biling': no instance answered within 0.01 s; did you mean 'billing'?"),
        (
            "warehouse",
            (
                "service 'warehouse': no instance answered within 0.01 s. "
                "These services answered: billing."
            ),
        ),
    ],
)
async def test_an_unknown_service_is_an_error_with_the_nearest_live_name(
    name: str, text: str
) -> None:
    with pytest.raises(NotFound) as raised:
        await ask_services(FakeAsker(answers), name, BRIEF)
    assert str(raised.value) == text


async def test_live_instances_that_do_not_answer_a_question_are_no_unknown_service() -> None:
    def pings(question: Question[InstanceState]) -> Sequence[InstanceState]:
        return answers(question) if isinstance(question, Ping) else ()

    with pytest.raises(Unavailable) as raised:
        await ask_services(FakeAsker(pings), "billing", BRIEF)
    text = str(raised.value)
    assert text.startswith("service 'billing': it is alive, but no instance answered the question")
    assert "did you mean" not in text
    assert "version of the bus" in text


@pytest.mark.parametrize("name", [None, "billing"])
async def test_silence_of_all_services_is_an_error_that_says_what_to_check(
    name: str | None,
) -> None:
    with pytest.raises(Unavailable) as raised:
        await ask_services(FakeAsker(), name, BRIEF)
    for part in ("BUS_URL", "BUS_DISCOVERY", "BUS_AUTH", "control.read", "--window"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("2", "Set seconds with --interval or --window."),
        ("0.5", "Set seconds with --interval or --window."),
        ("billing.get", "For a type, name its service: billing."),
        ("billing.get.v1", "For a type, name its service: billing."),
    ],
)
def test_a_name_that_no_service_has_is_refused_with_the_advice_that_fits(
    name: str, advice: str
) -> None:
    with pytest.raises(ContractError) as raised:
        check_service(name)
    assert str(raised.value).endswith(f". {advice}")


def test_the_advice_for_a_wrong_name_is_about_the_name_only() -> None:
    with pytest.raises(ContractError) as raised:
        check_service("Billing")
    assert "--interval" not in str(raised.value)


def test_an_invalid_name_of_a_service_is_refused_without_a_word_about_other_options() -> None:
    with pytest.raises(ContractError, match=r"'Foo' is not a valid service name") as raised:
        check_service("Foo")
    assert "--interval" not in str(raised.value)


class Watched:
    """A watch whose rounds a test feeds."""

    def __init__(self, service: str | None = None) -> None:
        self.now = 0.0
        self.view = LiveView(clock=lambda: self.now)
        self.asker = FakeAsker()
        target = Target(service)
        self.feed = LiveFeed(self.asker, self.view, Ping(), target, window=0)
        self.watch = ServiceWatch(self.view, self.feed, target)

    async def round(self, *records: InstanceStats) -> list[str]:
        """Ask once, 2 s after the last round, and return the block of lines."""
        self.now += 2
        self.asker.serve(records)
        await self.feed.ask()
        console, written = console_of(200)
        self.watch.print_block(console)
        return lines_of(written)


def handlers() -> list[HandlerState]:
    return [handler()]


async def test_the_watch_has_rates_from_the_second_round() -> None:
    watched = Watched()
    first = await watched.round(stats(handlers=handlers(), series=[counted(10)]))
    second = await watched.round(stats(handlers=handlers(), series=[counted(34)]))
    assert "rate/s" not in first[1]
    assert second[1].split()[6] == "rate/s"
    assert second[2].split()[6] == "12"
    assert second[-1] == ""


async def test_the_watch_shows_a_stop_at_once_and_a_lost_instance_after_three_rounds() -> None:
    watched = Watched("billing")
    await watched.round(stats("a"), stats("b"), stats("c"))
    stop = stats("b").model_dump() | {"event": "stopping", "state": "draining"}
    watched.now += 1
    watched.view.announce(Announcement.model_validate(stop))
    lines = await watched.round(stats("a"), stats("b", state="draining"))
    assert lines[1] == "billing: 1 of 3 instances is draining"
    await watched.round(stats("a"))
    lines = await watched.round(stats("a"))
    assert lines[0].startswith("1 service, 1 instance, at ")
    assert lines[1] == "billing: 1 of 2 instances no longer answer"
    assert sum("gone for" in line for line in lines) == 2


async def test_the_watch_shows_the_error_of_the_broker_and_the_last_state() -> None:
    watched = Watched()
    await watched.round(stats())
    watched.asker.error = Unavailable("the broker\nis not connected")
    lines = await watched.round()
    assert lines[1] == "error: the broker is not connected"
    assert lines[3].startswith("billing 1 ready")


async def test_a_watch_that_cannot_ask_shows_only_the_reason() -> None:
    watched = Watched()
    watched.asker.error = Unavailable("discovery is off")
    assert (await watched.round())[1:] == ["error: discovery is off", ""]


async def test_each_line_of_the_json_watch_is_one_state(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watched = Watched()
    await watched.feed.ask()
    watched.watch.print_json()
    await watched.round(stats())
    watched.asker.error = Unavailable("the broker is not connected")
    await watched.feed.ask()
    watched.watch.print_json()
    empty, state = map(json.loads, capsys.readouterr().out.splitlines())
    assert (empty["services"], empty["error"]) == ([], None)
    assert [service["name"] for service in state["services"]] == ["billing"]
    assert state["error"] == "the broker is not connected"


async def test_a_watch_without_instances_says_so() -> None:
    lines = await Watched().round()
    assert lines[1] == "no instance answers"
