"""`bus top`: its rows, its screen, its keys, and the queues it inspects."""

import asyncio
import io
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import RenderableType

from bus import Settings
from bus.cli.output import EscapingConsole
from bus.cli.top import commands, queues
from bus.cli.top.keys import read_keys
from bus.cli.top.operations import Sort
from bus.cli.top.queues import QueueReader, queue_rows, queues_of
from bus.cli.top.screen import TopScreen, share
from bus.errors import Unavailable
from bus.messaging.control import GetStats
from bus.messaging.service_info import InstanceStats, Series
from bus.messaging.store_instruments import JOBS_ROWS
from bus.operations.queue_inspection import (
    BrokerAddress,
    QueueFilter,
    QueueReport,
    QueueStatus,
)
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from bus.transports.rabbitmq.handshake import BrokerInfo
from tests.polling import until
from tests.unit.runtime.discovery.fake_asker import FakeAsker
from tests.unit.runtime.discovery.records import counted, handler, stats, timed, view_of

SERVER = BrokerInfo(product="RabbitMQ", version="4.0.5", cluster="rabbit@here", platform="Erlang")
EVENT = {"operation": "shop.sold", "version": "1", "kind": "event", "subscription": "ledger"}
CLOSE = {"operation": "billing.close", "version": "1", "kind": "job", "subscription": ""}
HANDLERS = [
    handler(free=1, in_flight=3),
    handler(operation="billing.close", kind="job", queue="billing.jobs.close.v1", slots=1, free=0),
    handler(
        operation="shop.sold",
        kind="event",
        subscription="ledger",
        queue="billing.events.shop.sold.v1.ledger",
        pauses=["poison-isolation"],
    ),
]
BEFORE = stats(handlers=HANDLERS, series=[counted(10), counted(1, labels=CLOSE)])
AFTER = stats(
    handlers=HANDLERS,
    series=[
        counted(210),
        counted(2, "internal"),
        timed(*[0.02] * 200),
        counted(5, labels=CLOSE),
        counted(6, "unavailable", labels=CLOSE),
        timed(3.0, labels=CLOSE),
    ],
)


class Top:
    """A screen whose rounds a test feeds."""

    def __init__(self, *, sort: Sort = "rate") -> None:
        self.now = 0.0
        self.view = LiveView(clock=lambda: self.now)
        self.asker = FakeAsker()
        self.feed = LiveFeed(self.asker, self.view, GetStats(), window=0)
        self.queues = QueueReader(Settings(auth="off"), None, self.view.live)
        self.screen = TopScreen(self.view, self.feed, self.queues, service=None, sort=sort)

    async def round(self, *records: InstanceStats) -> None:
        """Ask once, 2 s after the last round."""
        self.now += 2
        self.asker.serve(records)
        await self.feed.ask()
        self.screen.update()

    def lines(self, *, width: int = 120, height: int | None = None, keys: str = "") -> list[str]:
        written = io.StringIO()
        console = EscapingConsole(file=written, width=width)
        console.print(self.screen.render(console, height=height, keys=keys))
        return [line.rstrip() for line in written.getvalue().splitlines()]


async def two_rounds(**options: Any) -> Top:
    top = Top(**options)
    await top.round(BEFORE)
    await top.round(AFTER)
    return top


def operations_of(lines: list[str]) -> list[list[str]]:
    """Return the words of the rows of operations."""
    header = next(at for at, line in enumerate(lines) if line.startswith("operation"))
    rows = lines[header + 1 :]
    return [line.split() for line in (rows[: rows.index("")] if "" in rows else rows)]


async def test_an_operation_has_the_rates_and_durations_of_the_interval() -> None:
    lines = (await two_rounds()).lines()
    get, close, sold = operations_of(lines)
    header = ["operation", "rate/s", "errors/s", "p50", "p99", "max", "in", "flight", "slots"]
    assert lines[-4].split() == [*header, "instances"]
    assert get == ["billing.get.v1", "101", "1.0", "18ms", "20ms", "20ms", "3", "3/4", "1"]
    assert close == ["billing.close.v1", "5.0", "3.0", "2.8s", "3.0s", "3.0s", "0", "1/1", "1"]
    assert sold[:6] == ["shop.sold.v1", "(billing,", "ledger)", "paused:", "poison-isolation", "0"]


async def test_the_first_round_has_the_operations_without_rates() -> None:
    top = Top()
    await top.round(BEFORE)
    assert [row[:3] for row in operations_of(top.lines())][:2] == [
        ["billing.close.v1", "-", "-"],
        ["billing.get.v1", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("sort", "first"),
    [("rate", "billing.get.v1"), ("p99", "billing.close.v1"), ("errors", "billing.close.v1")],
)
async def test_the_operations_are_sorted_by_the_chosen_value(sort: Sort, first: str) -> None:
    assert operations_of((await two_rounds(sort=sort)).lines())[0][0] == first


async def test_the_first_line_has_the_sums_and_the_second_line_the_keys() -> None:
    first, second, *_ = (await two_rounds()).lines(keys=commands.KEYS, width=80, height=24)
    text = r"\d\d:\d\d:\d\d  1 service, 1 instance, 106/s, 4\.0 failed/s, by rate"
    assert re.fullmatch(text, first)
    assert second == "sort by: r rate  p p99  e errors    q quit"


async def test_an_operation_has_the_age_of_its_oldest_message_and_the_waiting_messages() -> None:
    top = Top()
    await top.round(stats(handlers=[handler(oldest_seconds=45), handler(operation="billing.x")]))
    top.queues.report = report(queue("billing.requests.get.v1", "requests", ready=133))
    lines = top.lines()
    (header,) = [line.split() for line in lines if line.startswith("operation")]
    assert header[-6:] == ["oldest", "waiting", "in", "flight", "slots", "instances"]
    get, other = operations_of(lines)
    assert other[-5:] == ["-", "133", "0", "0/4", "1"]
    assert get[-5:] == ["45s", "133", "0", "0/4", "1"]


async def test_the_waiting_messages_of_a_job_include_those_in_the_store() -> None:
    labels = {"operation": "billing.close", "version": "1", "state": "queued"}
    row = Series(name=JOBS_ROWS.name, labels=labels, value=7)
    close = handler(operation="billing.close", kind="job")
    top = Top()
    await top.round(stats(handlers=[close], series=[row]))
    (line,) = operations_of(top.lines())
    assert line[-5:-3] == ["-", "7"]
    top.queues.report = report(queue(close.queue, "jobs", ready=2))
    line, *_ = operations_of(top.lines())
    assert line[-5:-3] == ["-", "9"]


async def test_the_sort_by_p99_puts_an_operation_first_if_a_message_hangs() -> None:
    top = Top(sort="p99")
    hanging = handler(operation="billing.close", kind="job", oldest_seconds=45, free=3)
    handlers = [*HANDLERS, hanging]
    await top.round(BEFORE.model_copy(update={"handlers": tuple(handlers)}))
    await top.round(AFTER.model_copy(update={"handlers": tuple(handlers)}))
    assert operations_of(top.lines())[0][0] == "billing.close.v1"


async def test_a_small_screen_shows_the_failing_and_the_slow_operation() -> None:
    names = [f"billing.op{number:02}" for number in range(30)]
    labels = {
        name: {"operation": name, "version": "1", "kind": "request", "subscription": ""}
        for name in names
    }
    handlers = [handler(operation=name, queue=f"{name}.queue") for name in names]
    before = stats(handlers=handlers)
    after = stats(
        handlers=handlers,
        series=[
            *(counted(1_000 - at, labels=labels[name]) for at, name in enumerate(names[:28])),
            *(counted(1, labels=labels[name]) for name in names[28:]),
            counted(1, "internal", labels=labels[names[28]]),
            timed(3.0, labels=labels[names[29]]),
        ],
    )
    top = Top()
    await top.round(before)
    await top.round(after)
    top.queues.report = report(*(queue(f"{name}.queue", ready=9) for name in names))
    lines = top.lines(width=80, height=24, keys=commands.KEYS)
    shown = [row[0] for row in operations_of(lines) if row[0].startswith("billing.")]
    assert len(lines) <= 24
    assert {"billing.op28.v1", "billing.op29.v1"} <= set(shown)
    assert shown[0] == "billing.op00.v1"


async def test_a_long_line_about_a_problem_takes_one_line_of_the_screen() -> None:
    top = Top()
    await top.round(stats("i" * 80, handlers=[handler(oldest_seconds=45, timeout=30)]))
    lines = top.lines(width=80, height=24)
    assert lines[1].startswith(
        "billing: billing.get.v1: its oldest message has run for 45 s in iii"
    )
    assert lines[1].endswith("…")
    assert lines[2] == ""


async def test_an_error_of_the_broker_keeps_the_last_values_with_their_time() -> None:
    top = await two_rounds()
    top.lines()
    top.asker.error = Unavailable("the broker\nis not connected")
    await top.feed.ask()
    lines = top.lines()
    assert re.fullmatch(r"values of \d\d:\d\d:\d\d; error: the broker is not connected", lines[1])
    assert operations_of(lines)[0][1] == "101"


async def test_a_round_after_the_broker_returned_has_rates_again() -> None:
    top = await two_rounds()
    top.asker.error = Unavailable("the broker is not connected")
    await top.feed.ask()
    top.asker.error = None
    top.now += 98
    await top.round(stats(handlers=HANDLERS, series=[counted(1210)]))
    lines = top.lines()
    assert not any("error:" in line for line in lines)
    assert operations_of(lines)[0][:2] == ["billing.get.v1", "10"]


async def test_a_process_that_restarted_has_no_negative_rate() -> None:
    top = await two_rounds()
    await top.round(stats(started=2, handlers=HANDLERS, series=[counted(3)]))
    assert all("-" in row[1:] for row in operations_of(top.lines())[:2])
    await top.round(stats(started=2, handlers=HANDLERS, series=[counted(5)]))
    assert operations_of(top.lines())[0][:2] == ["billing.get.v1", "1.0"]


async def test_no_instance_is_a_line() -> None:
    top = Top()
    await top.round()
    assert top.lines()[1] == "no instance answers"


async def many(count: int) -> Top:
    top = Top()
    records = [
        stats(f"i-{n}", service=f"s-{n:03}", state="not-ready", handlers=[handler()])
        for n in range(count)
    ]
    await top.round(*records)
    top.queues.report = QueueReport(
        server=SERVER,
        queues=tuple(queue(f"s-{n:03}.jobs.x.v1", ready=n) for n in range(count)),
        at=0,
    )
    return top


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (80, 30)])
async def test_the_screen_fits_into_the_terminal(width: int, height: int) -> None:
    lines = (await many(300)).lines(width=width, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "295 more problems; see `bus services`" in lines
    assert sum(line.startswith("and ") for line in lines) == 2


async def test_a_screen_without_a_limit_has_all_rows() -> None:
    lines = (await many(50)).lines()
    assert sum(line.startswith("s-0") and ".jobs." in line for line in lines) == 50
    assert not any(line.startswith("and ") for line in lines)


@pytest.mark.parametrize(
    ("space", "wanted", "given"),
    [
        (None, (50, 60), (50, 60)),
        (20, (5, 6), (5, 6)),
        (20, (5, 60), (5, 15)),
        (20, (50, 6), (14, 6)),
        (21, (50, 60), (11, 10)),
    ],
)
def test_two_tables_share_the_lines_of_the_screen(
    space: int | None, wanted: tuple[int, int], given: tuple[int, int]
) -> None:
    assert share(space, *wanted) == given


# --- Queues ---


def queue(name: str, role: Any = "jobs", **fields: Any) -> QueueStatus:
    values = {"service": name.partition(".")[0], "ready": 0, "unacked": 0, "consumers": 1}
    return QueueStatus(name=name, role=role, **{**values, **fields})


def report(*found: QueueStatus) -> QueueReport:
    return QueueReport(server=SERVER, queues=found, at=0)


def test_queues_that_need_an_operator_come_first_and_then_the_longest() -> None:
    rows = queue_rows(
        report(
            queue("a.jobs.x.v1"),
            queue("b.jobs.x.v1", ready=90),
            queue("c.jobs.x.v1", ready=5, consumers=0),
            queue("d.jobs.x.v1"),
            queue("d.jobs.x.v1.dead", "dead", ready=2, work_queue="d.jobs.x.v1"),
            queue("e.jobs.x.v1", exists=False),
            queue("e.retry.1s", "retry"),
            queue("e.retry.5s", "retry", ready=7),
            queue("e.unroutable.dead", "dead", ready=1),
            queue("f.unroutable.dead", "dead"),
            queue("f.replies.x", "replies", ready=1),
        )
    )
    assert [(row.queue.name, row.dead) for row in rows] == [
        ("c.jobs.x.v1", None),
        ("d.jobs.x.v1", 2),
        ("e.unroutable.dead", 1),
        ("b.jobs.x.v1", None),
        ("e.retry.5s", None),
        ("a.jobs.x.v1", None),
    ]


@pytest.mark.parametrize(("live", "is_unserved"), [((), True), (("a.jobs.x.v1",), False)])
def test_a_queue_of_a_live_instance_is_served_before_rabbitmq_counts_its_consumer(
    live: tuple[str, ...], is_unserved: bool
) -> None:
    (row,) = queue_rows(report(queue("a.jobs.x.v1", ready=3, consumers=0)), live)
    assert row.is_unserved == is_unserved


async def test_the_screen_has_the_queues_with_their_dead_letters() -> None:
    top = await two_rounds()
    top.queues.report = report(
        queue("d.jobs.x.v1", ready=3, consumers=0),
        queue("d.jobs.x.v1.dead", "dead", ready=2, work_queue="d.jobs.x.v1"),
        queue("d.requests.y.v1", "requests", unacked=1),
    )
    assert [line.split() for line in top.lines()[-3:]] == [
        ["queue", "ready", "unacked", "consumers", "dead", "letters"],
        ["d.jobs.x.v1", "3", "0", "0", "2"],
        ["d.requests.y.v1", "0", "1", "1"],
    ]


def test_the_queues_of_live_instances_have_their_dead_letter_queues() -> None:
    assert queues_of(view_of(AFTER).live()) == {
        "billing.requests.get.v1",
        "billing.jobs.close.v1",
        "billing.jobs.close.v1.dead",
        "billing.events.shop.sold.v1.ledger",
        "billing.events.shop.sold.v1.ledger.dead",
    }


class Inspection:
    """An inspection of queues that a test controls."""

    def __init__(self) -> None:
        self.has_api, self.has_broker = True, True
        self.asked: list[QueueFilter] = []

    async def __call__(self, _: BrokerAddress, selection: QueueFilter) -> QueueReport:
        self.asked.append(selection)
        if not self.has_broker or not (self.has_api or selection.names):
            raise Unavailable("no answer")
        return report(*(queue(name) for name in selection.names or ("all.jobs.x.v1",)))


@pytest.fixture
def inspection(monkeypatch: pytest.MonkeyPatch) -> Inspection:
    inspection = Inspection()
    monkeypatch.setattr(queues, "inspect_queues", inspection)
    return inspection


def reader(*records: InstanceStats, service: str | None = None) -> QueueReader:
    return QueueReader(Settings(auth="off"), service, view_of(*records).live)


async def test_with_the_management_api_all_queues_are_inspected(inspection: Inspection) -> None:
    reading = reader(AFTER, service="billing")
    await reading.read()
    assert inspection.asked == [QueueFilter(service="billing")]
    assert reading.report is not None


async def test_without_the_api_the_queues_of_live_instances_are_inspected(
    inspection: Inspection,
) -> None:
    inspection.has_api = False
    reading = reader(AFTER)
    for _ in range(16):
        await reading.read()
    assert reading.report is not None
    assert len(reading.report.queues) == 5
    assert sum(not asked.names for asked in inspection.asked) == 2, "the API is rarely tried again"
    inspection.has_api = True
    for _ in range(15):
        await reading.read()
    assert len(reading.report.queues) == 1


async def test_without_the_api_and_without_instances_no_queue_is_inspected(
    inspection: Inspection,
) -> None:
    inspection.has_api = False
    reading = reader()
    await reading.read()
    assert (reading.report, reading.error) == (None, None)


async def test_a_failed_inspection_keeps_the_last_queues(inspection: Inspection) -> None:
    reading = reader(AFTER)
    await reading.read()
    inspection.has_broker = False
    await reading.read()
    assert reading.report is not None
    assert str(reading.error) == "no answer"
    inspection.has_broker = True
    await reading.read()
    assert reading.error is None


# --- Keys ---


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Yield the user's end and the command's end of a terminal."""
    user, command = pty.openpty()
    with os.fdopen(command, "r+b", buffering=0) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield user, command
    os.close(user)


async def test_keys_are_read_and_the_terminal_is_restored(terminal: tuple[int, int]) -> None:
    user, command = terminal
    before, keys = termios.tcgetattr(command), list[str]()
    with read_keys(keys.append):
        os.write(user, b"pq")
        await until(lambda: keys == ["p", "q"], "the keys")
        assert termios.tcgetattr(command) != before
    assert termios.tcgetattr(command) == before


async def test_the_terminal_is_restored_after_a_crash(terminal: tuple[int, int]) -> None:
    _, command = terminal
    before = termios.tcgetattr(command)
    with pytest.raises(RuntimeError), read_keys(lambda _: None):
        raise RuntimeError
    assert termios.tcgetattr(command) == before


async def test_without_a_terminal_no_key_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("q"))
    keys = list[str]()
    with read_keys(keys.append):
        await asyncio.sleep(0)
    assert keys == []


async def test_the_keys_sort_and_quit() -> None:
    top, stop, drawn = Top(), asyncio.Event(), list[Sort]()
    on_key = commands.key_reader(top.screen, stop, lambda: drawn.append(top.screen.sort))
    for key in "peRx":
        on_key(key)
    assert drawn == ["p99", "errors", "rate"]
    assert not stop.is_set()
    on_key("q")
    assert stop.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("inspection")
async def test_a_signal_while_the_screen_appears_restores_the_terminal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, reading, output = LiveView(), reader(), io.StringIO()
    feed = LiveFeed(FakeAsker(), view, GetStats(), interval=3600, window=0.01)
    screen = TopScreen(view, feed, reading, service=None, sort="rate")
    render = screen.render

    def interrupted(*arguments: Any, **options: Any) -> RenderableType:
        os.kill(os.getpid(), number)
        return render(*arguments, **options)

    monkeypatch.setattr(screen, "render", interrupted)
    console = EscapingConsole(file=output, force_terminal=True, width=100, height=30)
    await asyncio.wait_for(commands.run_screen(console, feed, reading, screen, 3600), 20)
    assert "\x1b[?1049l" in output.getvalue()
