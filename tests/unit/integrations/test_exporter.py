"""`bus exporter`: fresh answers, instances that disappear, and a broker that is away."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bus.contracts.contract import Message, Request, contract
from bus.errors import BusError, NotFound, PermissionDenied, Unavailable
from bus.integrations.prometheus import Exporter, MetricsPage, answer_limits, exporter_registry
from bus.integrations.prometheus import exporter as exporter_module
from bus.messaging.control import ALL, Announcement, Answer, GetInfo, GetStats, Question, Target
from bus.messaging.service_info import HandlerState, InstanceInfo, InstanceStats
from bus.runtime.router import Router
from bus.testing.buses import MemoryBuses
from tests.polling import until
from tests.unit.integrations.stats import handled, ready, stats

Values = dict[tuple[str, ...], float]
LABELS = ("service", "instance", "state", "outcome", "version", "reason")


class Instances:
    """An asker, and the instances that answer it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.live: list[InstanceStats] = []
        self.asked: list[Question[Any]] = []
        self.windows: list[float] = []
        self.error: BusError | None = None
        self.hangs = False
        self.answers_info = True
        self.dropped: Counter[str] = Counter()
        self.announced: asyncio.Queue[Announcement] = asyncio.Queue()

    async def ask(
        self,
        question: Question[Any],
        target: Target = ALL,
        *,
        window: float = 1.0,
        expected: int | None = None,
    ) -> list[Answer[Any]]:
        self.asked.append(question)
        self.windows.append(window)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        if isinstance(question, GetInfo) and not self.answers_info:
            await asyncio.Event().wait()
        if isinstance(question, GetInfo):
            fields = ("service", "instance", "version", "started", "state")
            return [
                Answer(
                    InstanceInfo(
                        **{name: getattr(each, name) for name in fields},
                        bus_version=f"0.{len(each.instance)}",
                        python_version="3.11",
                    ),
                    0.01,
                )
                for each in self.live
            ]
        return [Answer(each, 0.01) for each in self.live]

    async def announcements(self) -> AsyncGenerator[Announcement, None]:
        while True:
            yield await self.announced.get()

    def count(self, kind: type[Question[Any]]) -> int:
        return sum(isinstance(each, kind) for each in self.asked)


@pytest.fixture
def instances() -> Instances:
    return Instances()


@pytest.fixture
async def exporter(instances: Instances) -> Exporter:
    return Exporter(instances, interval=10, window=0.05, clock=lambda: instances.now)


parse: Callable[[str], Iterable[Metric]] = text_string_to_metric_families


async def scrape(exporter: Exporter) -> Values:
    """Return the values by name and the labels that they have."""
    page = MetricsPage(exporter_registry(lambda: exporter.shown), exporter.refresh)
    answer = await page("application/openmetrics-text")
    return {
        (each.name, *(each.labels[name] for name in LABELS if name in each.labels)): each.value
        for family in parse(answer.content.decode())
        for each in family.samples
    }


HANDLED = "trunkline_messages_handled_total"
INSTANCES = "trunkline_instances"
UP = ("trunkline_exporter_up",)
REJECTED = "trunkline_exporter_answers_rejected_total"


async def test_each_live_instance_has_its_own_metrics(
    instances: Instances, exporter: Exporter
) -> None:
    instances.live = [
        stats(handled(1), ready(1), instance="a"),
        stats(handled(2), ready(0), instance="bb", version="7"),
        stats(handled(3), service="till", instance="a"),
    ]
    found = await scrape(exporter)

    counted = {key[1:3]: value for key, value in found.items() if key[0] == HANDLED}
    assert counted == {("library", "a"): 1, ("library", "bb"): 2, ("till", "a"): 3}
    assert found["trunkline_ready", "library", "bb"] == 0
    assert found[UP] == 1
    assert found["trunkline_exporter_answers",] == 3


async def test_each_instance_is_asked_once_for_the_version_of_its_bus(
    instances: Instances, exporter: Exporter
) -> None:
    instances.live = [stats(instance="a")]
    first = await scrape(exporter)
    instances.now += 20
    await scrape(exporter)
    assert instances.count(GetInfo) == 1

    instances.live.append(stats(instance="bb"))
    instances.now += 20
    second = await scrape(exporter)

    assert first["trunkline_build_info", "library", "a", "0.1"] == 1
    assert second["trunkline_build_info", "library", "bb", "0.2"] == 1
    assert instances.count(GetInfo) == 2


async def test_scrapes_within_the_interval_do_not_ask_again(
    instances: Instances, exporter: Exporter
) -> None:
    instances.live = [stats(handled(1))]
    await scrape(exporter)
    instances.live = [stats(handled(2))]
    for _ in range(5):
        instances.now += 1
        found = await scrape(exporter)
        assert found[HANDLED, "library", "a", "ok", "1"] == 1
    assert instances.count(GetStats) == 1

    instances.now += 5
    assert (await scrape(exporter))[HANDLED, "library", "a", "ok", "1"] == 2
    assert instances.count(GetStats) == 2


async def test_scrapes_at_the_same_time_ask_once(instances: Instances) -> None:
    exporter = Exporter(instances, interval=0.0, window=0.05, clock=lambda: instances.now)
    page = MetricsPage(exporter_registry(lambda: exporter.shown), exporter.refresh)
    await asyncio.gather(*(page("") for _ in range(20)))

    assert instances.count(GetStats) == 1


async def test_an_instance_that_does_not_answer_has_no_metrics_and_is_silent_and_then_gone(
    instances: Instances, exporter: Exporter
) -> None:
    one, other = stats(handled(1), instance="a"), stats(handled(1), instance="b")
    instances.live = [one, other]
    before = await scrape(exporter)
    instances.live = [one]
    states: list[tuple[float, float]] = []
    for _ in range(3):
        instances.now += 20
        found = await scrape(exporter)
        assert (HANDLED, "library", "b", "ok", "1") not in found
        states.append((found[INSTANCES, "library", "ready"], found[INSTANCES, "library", "silent"]))

    assert before[INSTANCES, "library", "ready"] == 2
    assert states == [(1, 1), (1, 1), (1, 0)]


async def test_an_instance_that_announces_its_stop_is_not_silent(
    instances: Instances, exporter: Exporter
) -> None:
    instances.live = [stats(instance="a")]
    await scrape(exporter)
    reading = asyncio.create_task(exporter.read_announcements())
    fields = instances.live[0].model_dump(include={"service", "instance", "started"})
    instances.announced.put_nowait(Announcement(**fields, state="draining", event="stopping"))
    await until(lambda: exporter._view.live()[0].has_stopped, "the announcement")
    during = await scrape(exporter)
    instances.live = []
    instances.now += 20
    after = await scrape(exporter)
    reading.cancel()

    assert during[INSTANCES, "library", "draining"] == 1
    assert {after[INSTANCES, "library", state] for state in exporter_module.STATES} == {0}


async def test_a_service_without_instances_is_shown_with_none_for_a_day(
    instances: Instances, exporter: Exporter
) -> None:
    instances.live = [stats()]
    await scrape(exporter)
    instances.live = []
    shown = []
    for hours in (1, 20, 25):
        instances.now += hours * 3600
        shown.append((await scrape(exporter)).get((INSTANCES, "library", "ready")))

    assert shown == [0, 0, None]


async def test_a_broker_that_is_away_is_shown_and_never_the_old_values(
    instances: Instances, exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    instances.live = [stats(handled(1))]
    await scrape(exporter)
    instances.error = Unavailable("the broker is away")
    instances.now += 3
    fresh = await scrape(exporter)
    with caplog.at_level(logging.INFO, "bus.exporter"):
        for _ in range(3):
            instances.now += 10
            away = await scrape(exporter)
            assert not [key for key in away if key[0] in {HANDLED, INSTANCES}]
            assert away[UP] == 0
        assert await exporter.ready() == "the question to the instances cannot be sent"
        instances.error = None
        instances.now += 6
        back = await scrape(exporter)

    assert (fresh[UP], fresh[HANDLED, "library", "a", "ok", "1"]) == (1, 1)
    assert fresh["trunkline_exporter_answer_age_seconds",] == 3
    assert (back[UP], back[HANDLED, "library", "a", "ok", "1"]) == (1, 1)
    assert back["trunkline_exporter_questions_total", "failed"] == 3
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]


JOB = HandlerState(
    operation="book.scan",
    version=1,
    kind="job",
    queue="library.jobs.scan.v1",
    slots=1,
    free=1,
    in_flight=0,
)


@pytest.mark.parametrize(
    ("outcome", "up"),
    [(Unavailable("no answer"), 0), (NotFound("no such queue"), 1), (None, 1)],
    ids=["the broker is silent", "the queue was deleted", "the broker answers"],
)
async def test_services_are_gone_only_if_the_broker_answers(
    instances: Instances, outcome: BusError | None, up: int
) -> None:
    checked: list[str] = []

    async def depth(queue: str) -> int:
        checked.append(queue)
        if outcome is not None:
            raise outcome
        return 0

    exporter = Exporter(
        instances, interval=10, window=0.05, depth=depth, clock=lambda: instances.now
    )
    await scrape(exporter)
    instances.live = [stats().model_copy(update={"handlers": (JOB,)})]
    instances.now += 20
    await scrape(exporter)
    assert checked == []

    instances.live = []
    instances.now += 20
    found = await scrape(exporter)

    assert checked == ["library.jobs.scan.v1"]
    assert found[UP] == up
    assert found.get((INSTANCES, "library", "silent")) == (1 if up else None)


async def test_after_a_failure_the_probe_of_readiness_asks_again(
    instances: Instances, exporter: Exporter
) -> None:
    instances.error = Unavailable("the broker is away")
    await scrape(exporter)
    assert await exporter.ready() is not None
    instances.error = None
    assert await exporter.ready() is not None  # not yet: the pause lasts 5 s
    instances.now += 6

    assert await exporter.ready() is None
    asked = len(instances.asked)
    instances.now += 3600
    assert await exporter.ready() is None
    assert len(instances.asked) == asked


async def test_a_question_that_hangs_ends(
    instances: Instances, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "SLACK_SECONDS", 0.01)
    instances.hangs = True
    async with asyncio.timeout(20):
        found = await scrape(exporter)

    assert found[UP] == 0


async def test_instances_that_do_not_tell_their_version_do_not_end_the_question(
    instances: Instances,
) -> None:
    instances.live = [stats(ready(1))]
    await Exporter(instances, window=5).refresh()

    # If no instance answers, each question takes its whole window.
    assert instances.count(GetInfo) == 1
    assert sum(instances.windows) < 5 + exporter_module.SLACK_SECONDS


async def test_an_instance_that_does_not_tell_its_version_keeps_its_metrics(
    instances: Instances, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "SLACK_SECONDS", 0.01)
    instances.live, instances.answers_info = [stats(handled(1))], False
    found = await scrape(exporter)

    assert (found[UP], found[HANDLED, "library", "a", "ok", "1"]) == (1, 1)
    assert found["trunkline_build_info", "library", "a", ""] == 1


async def test_a_question_without_a_result_does_not_blame_the_broker(
    instances: Instances,
    exporter: Exporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter_module, "SLACK_SECONDS", 0.01)
    instances.hangs = True
    with pytest.raises(Unavailable, match=r"^the question took longer than 0\.06 s\."):
        await exporter.check()


async def test_a_service_with_too_many_series_drops_only_its_own_instances(
    instances: Instances, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_limits, "MAX_SERIES_OF_SERVICE", 3)
    many = [handled(1, operation=f"mail.a{number}") for number in range(4)]
    instances.live = [
        stats(*many, service="mail", instance="a"),
        stats(handled(2), service="mail", instance="b"),
        stats(handled(3)),
    ]
    instances.dropped.update({"malformed": 2})
    found = await scrape(exporter)

    shown = {key[1:3] for key in found if key[0] == HANDLED}
    assert shown == {("mail", "b"), ("library", "a")}
    assert found[REJECTED, "too many"] == 1
    assert found[REJECTED, "malformed"] == 2


async def test_an_instance_that_was_only_announced_does_not_count(
    instances: Instances, exporter: Exporter
) -> None:
    instances.live = [stats(instance="a")]
    await scrape(exporter)
    for number in range(100):
        fields = {"service": "mail", "instance": f"{number}", "started": 1, "state": "ready"}
        exporter._view.announce(Announcement.model_validate({**fields, "event": "started"}))
    found = await scrape(exporter)
    instances.now += 20
    later = await scrape(exporter)

    assert not [key for key in (*found, *later) if key[:2] == (INSTANCES, "mail")]
    assert later[INSTANCES, "library", "ready"] == 1


async def test_an_exporter_that_may_not_ask_does_not_start(
    instances: Instances, exporter: Exporter
) -> None:
    instances.error = PermissionDenied("the operator has no right control.read")

    with pytest.raises(PermissionDenied, match=r"control\.read"):
        await exporter.check()


class Price(Message):
    cents: int


@contract("store.price", version=1, idempotent=True)
class AskPrice(Request[Price]):
    book: str


router = Router("store")


@router.request(AskPrice)
async def price(request: AskPrice) -> Price:
    return Price(cents=420)


async def test_the_services_on_a_broker_answer_the_exporter() -> None:
    async with MemoryBuses() as buses:
        till, watcher = await buses.bus("till"), await buses.bus("watcher")
        for _ in range(2):
            await buses.serve(await buses.bus("store"), router)
        for _ in range(6):
            await till.request(AskPrice(book="Emma"))
        exporter = Exporter(watcher.discovery, window=0.3)
        await exporter.check()
        found = await scrape(exporter)

    counted = [value for key, value in found.items() if key[:2] == (HANDLED, "store")]
    assert (len(counted), sum(counted)) == (2, 6)
    assert found[INSTANCES, "store", "ready"] == 2
    assert found[INSTANCES, "till", "ready"] == 1
